from dataclasses import replace

import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student_t

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedWarning, FitError
from pyro_amortized.population import bootstrapping


@pytest.mark.slow
def test_bootstraps_agree_with_standard_errors(fit):
    replicates = pa.bootstrap(fit, num_replicates=60, seed=1)
    for name, error in fit.robust_standard_errors.items():
        low, high = replicates.estimates[name].quantile(torch.tensor([0.16, 0.84]).double(), 0)
        ratio = (high - low) / 2 / error  # of omega[1] the standard deviation is skewed
        assert ((ratio - 1).abs() < 0.4).all(), name
        assert (replicates.standard_errors[name] > 0.6 * error).all(), name
    first, _, heading, *rows = repr(replicates).split("\n")
    assert first == "60 replicates of a nonparametric bootstrap"
    assert heading.split()[:3] == ["parameter", "mean", "sd"]
    assert [row.split()[0] for row in rows] == fit.structure.population_names
    assert float(rows[-1].split()[1]) == pytest.approx(
        float(replicates.estimates["sigma"].mean()), abs=1e-4
    )
    low, high = replicates.interval()["omega"]
    assert ((low < fit.estimates["omega"]) & (fit.estimates["omega"] < high)).all()
    plain = replicates.interval(method="percentile")["sigma"]
    logs = replicates.estimates["sigma"].log()
    wide = float(student_t.ppf(0.025, 39)) * (40 / 39) ** 0.5
    tail = float(norm.cdf(wide))
    assert torch.allclose(plain[0].log(), logs.quantile(tail), atol=0.02)
    basic = replicates.interval()["sigma"]  # mirrored about the estimate, in logarithms
    center = fit.estimates["sigma"].log()
    assert torch.allclose(basic[0].log() + plain[1].log(), 2 * center, atol=0.02)
    with pytest.raises(FitError, match="percentile"):
        replicates.interval(method="studentized")


@pytest.mark.slow
def test_parametric_bootstrap(fit):
    replicates = pa.bootstrap(fit, num_replicates=4, parametric=True, num_draws=200, seed=1)
    assert replicates.kind == "parametric"
    apart = (replicates.vectors - fit.vector) / fit.covariance.diagonal().sqrt()
    assert apart.abs().max() < 5
    assert apart.std() > 0.4


def test_posterior_modes_are_refused(fit):
    mode = replace(fit, criterion="maximum a posteriori")
    with pytest.raises(FitError, match="A bootstrap of a fit by maximum a posteriori"):
        pa.bootstrap(mode)
    with pytest.raises(FitError, match="A profile likelihood of a fit"):
        pa.profile_likelihood(mode, "sigma")


def test_an_interrupted_bootstrap_keeps_what_is_done(fit, monkeypatch):
    """Ctrl-C after three replicates: they are those of a bootstrap of three."""
    real, calls = bootstrapping.maximize, []

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 5:  # the common centre, three replicates, and one more
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    expected = pa.bootstrap(fit, num_replicates=3, num_draws=50, seed=1)
    monkeypatch.setattr(bootstrapping, "maximize", interrupted)
    with pytest.warns(AmortizedWarning, match="interrupted after 3 of 100 replicates"):
        kept = pa.bootstrap(fit, num_replicates=100, num_draws=50, seed=1)
    assert torch.equal(kept.vectors, expected.vectors)
    calls[:] = [1, 1, 1]
    with pytest.raises(KeyboardInterrupt):
        pa.bootstrap(fit, num_replicates=100, num_draws=50, seed=1)
