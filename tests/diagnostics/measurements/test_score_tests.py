"""Wrong times, and values that are too frequent: score tests find them, and right data pass."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import residuals
from pyro_amortized.diagnostics.measurements.error_checks import error_checks
from pyro_amortized.diagnostics.measurements.score_tests import _rare_p_value, score_statistic

NUM = 60
TIMES = torch.tensor([0.5, 1.0, 2.0, 3.0, 5.0, 8.0]).double()
ERROR = 0.1


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator).double()


def decay(cohort):
    """An exponential decay with a random level."""
    typical = pyro.sample("typical", dist.Normal(0.0, 1.0))
    log_rate = pyro.sample("log_rate", dist.Normal(-1.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        level = pyro.sample("level", dist.Normal(typical, omega))
        y = cohort["y"]
        curve = (level[..., None] - log_rate.exp()[..., None] * y.times).exp()
        pyro.sample(
            "y", dist.Normal(curve, sigma[..., None]).mask(y.observed).to_event(1), obs=y.values
        )


def decays(seed, wrong):
    """Real times are the planned ones times a random factor, and the planned ones are written."""
    generator = torch.Generator().manual_seed(seed)
    level = 1 + 0.3 * normal(generator, NUM, 1)
    real = TIMES * torch.exp(wrong * normal(generator, NUM, len(TIMES)))
    values = (level - 0.4 * real).exp() + ERROR * normal(generator, NUM, len(TIMES))
    return pa.Cohort({"y": pa.Series(TIMES.expand(NUM, -1), values)})


def counts(cohort):
    typical = pyro.sample("typical", dist.Normal(1.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        level = pyro.sample("level", dist.Normal(typical, omega))
        y = cohort["y"]
        rate = level.exp()[..., None].expand(y.values.shape)
        pyro.sample("y", dist.Poisson(rate).mask(y.observed).to_event(1), obs=y.values)


def seizures(seed, change):
    generator = torch.Generator().manual_seed(seed)
    rate = (1.3 + 0.4 * normal(generator, NUM, 1)).exp().expand(-1, 8)
    values = change(torch.poisson(rate, generator=generator))
    return pa.Cohort({"y": pa.Series(torch.arange(8).double().expand(NUM, -1), values)})


def checks_of(program, cohort):
    fit = pa.fit_population(program, cohort, num_draws=200, num_starts=1, seed=1)
    scores = fit.scores[:, fit.estimated].numpy()
    found = residuals(fit, num_simulations=200, seed=1)
    return found, {c.name: c for c in error_checks(found, fit.cohort, scores)}


def test_planned_times_in_place_of_the_real_ones_are_named():
    _, checks = checks_of(decay, decays(1, 0.25))
    assert checks["errors of y"].status == "failed"
    assert "the errors are larger where the curve of the individual is steep" in (
        checks["errors of y"].words
    )


def test_right_times_pass_and_slopes_are_those_of_the_curve():
    found, checks = checks_of(decay, decays(2, 0.0))
    assert checks["errors of y"].status == "passed"
    # The slope of the exponential decay is minus its rate times the curve.
    ratio = (found.drawn_slopes / found.drawn_predictions)[:, found.times > TIMES[0]]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.clamp(max=5.0), "the value 5 occurs"),
        (lambda y: torch.where(y > 3, (y / 5).round() * 5, y), "the value 4 occurs 0 times"),
    ],
)
def test_counts_that_are_too_frequent_are_named(change, words):
    _, checks = checks_of(counts, seizures(1, change))
    assert checks["frequencies of y"].status == "failed"
    assert words in checks["frequencies of y"].words


def test_right_counts_pass_with_probabilities_that_add_up():
    found, checks = checks_of(counts, seizures(2, lambda y: y))
    assert checks["frequencies of y"].status == "passed"
    assert checks["errors of y"].status == "passed"
    total = found.frequencies.sum(1)
    assert bool((total <= 1 + 1e-9).all())
    assert float(total.mean()) > 0.99
    unknown = replace(found, frequencies=found.frequencies[:, :0])
    assert unknown.frequencies.shape[1] == 0


def test_the_statistic_has_the_t_distribution_of_what_the_parameters_do_not_explain():
    generator, z = np.random.default_rng(1), []
    for _ in range(400):
        scores = generator.standard_normal((30, 2))
        scores -= scores.mean(0)
        own = generator.standard_normal(30) + scores @ np.array([1.0, -2.0])
        z.append(score_statistic(own, np.arange(30), scores)[0])
    assert scipy.stats.kstest(z, "t", args=(28,)).pvalue > 0.001


def test_a_rare_value_that_does_not_occur_is_no_finding():
    """Its individuals do not vary, so that their variance says nothing about the number."""
    assert _rare_p_value(0, 5.0) == pytest.approx(2 * np.exp(-5.0))
    assert _rare_p_value(0, 20.0) < 1e-8
    assert _rare_p_value(0, 100.0) == 0.0
    rng = np.random.default_rng(1)
    p_values = [_rare_p_value(int(x), 6.0) for x in rng.poisson(6.0, 2000)]
    for level in (0.001, 0.01, 0.1):
        assert np.less(p_values, level).sum() <= scipy.stats.binom.ppf(0.9995, 2000, level)
