import math
import warnings
from importlib.metadata import version

import arviz
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate, plots, to_arviz
from pyro_amortized.errors import CohortError, TrainingError
from tests.exact import TRUTH, exact_log_marginal, linear_program


@pytest.fixture(scope="module")
def fit(linear, linear_guide):
    return pa.fit_population(linear_program, linear_guide, linear, start=TRUTH, num_draws=300)


@pytest.fixture(scope="module", params=[0.0, 0.3, 0.6])
def calibration(request, linear, linear_guide):
    design = pa.Resample(linear, pa.RandomMissing(request.param, request.param))
    return calibrate(linear_guide, design, num_individuals=400, num_draws=400, seed=2)


def test_corrected_ranks_are_uniform_and_intervals_cover(calibration):
    assert all(p > 0.005 for p in calibration.p_values().values())
    for level in (0.5, 0.9):
        error = (level * (1 - level) / 400) ** 0.5
        for found in calibration.coverage(level).values():
            assert abs(found - level) < 3.5 * error


def test_calibration_sees_a_wrong_guide(linear, linear_guide):
    """Widen the guide twofold: its raw ranks give it away, the corrected ones stay uniform."""
    design = pa.Resample(linear)
    posterior = linear_guide.posterior
    last = posterior.flow.head
    kept = last.bias.clone()
    try:
        last.bias[2:4] -= 0.8
        wrong = calibrate(linear_guide, design, num_individuals=400, num_draws=400, seed=3)
    finally:
        last.bias.copy_(kept)
    assert min(wrong.p_values(raw=True).values()) < 1e-4
    assert min(wrong.p_values().values()) > 0.001


def test_bins_must_divide_the_ranks(calibration):
    with pytest.raises(TrainingError, match="bins"):
        calibration.p_values(num_bins=7)


def test_arviz_groups_and_dimensions(fit, linear, tmp_path):
    data = to_arviz(fit, num_draws=100, seed=3)
    posterior = data["posterior"]
    assert posterior["phi"].dims[:3] == ("chain", "draw", "individual")
    assert posterior["mean"].shape == (1, 100, 2)
    assert (np.asarray(posterior["omega"]) > 0).all()
    num = linear.num_observations
    assert data["observed_data"]["y"].shape == (num,)
    assert data["posterior_predictive"]["y"].shape == (1, 100, num)
    assert not np.isnan(np.asarray(data["observed_data"]["y"])).any()
    assert data["sample_stats"]["pareto_k"].shape == (40,)
    center = np.asarray(posterior["mean"]).mean((0, 1))
    assert np.allclose(center, fit.estimates["mean"].numpy(), atol=0.1)
    path = tmp_path / "fit.nc"
    data.to_netcdf(str(path))
    with xarray.open_dataset(path, group="posterior") as again:
        assert np.allclose(again["mean"], posterior["mean"])
        assert again.attrs["estimator"] == "corrected"
        assert again.attrs["seed"] == 3
        assert again.attrs["torch_version"] == version("torch")


def test_arviz_summarises(fit):
    with np.errstate(all="ignore"):
        table = arviz.summary(to_arviz(fit, num_draws=100), var_names=["sigma"], kind="stats")
    assert float(table["mean"].iloc[0]) == pytest.approx(float(fit.estimates["sigma"]), rel=0.1)


def test_individual_posteriors_export_alone(fit):
    data = to_arviz(fit.individuals, num_draws=50)
    assert set(data["posterior"].data_vars) == {"phi"}


def test_figures_are_drawn(fit, calibration, tmp_path):
    figures = {
        "fits": plots.individual_fits(fit, num_draws=30, max_individuals=6),
        "training": plots.training_curve(fit.guide.history),
        "ranks": plots.rank_histogram(calibration),
    }
    for name, figure in figures.items():
        path = tmp_path / f"{name}.png"
        figure.savefig(path, dpi=40)
        assert path.stat().st_size > 3000
    axes = figures["fits"].axes
    drawn = sum(len(line.get_xdata()) for line in axes[0].lines if line.get_marker() == "o")
    assert drawn == int(fit.cohort["y"].observed[0].sum())
    with pytest.raises(CohortError, match="cannot be shown"):
        plots.individual_fits(fit, series="z")


def test_raw_and_corrected_differ_only_by_weights(calibration):
    assert calibration.ranks.shape == calibration.raw_ranks.shape
    assert calibration.ranks.max() <= 99
    assert torch.isfinite(calibration.levels).all()


def test_models_are_compared_leaving_out_one_individual_at_a_time(linear, linear_guide, fit):
    """Beside the exact likelihood at the same draws of the population."""

    def flat(cohort):
        """Too little variability of the slope."""
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            scale = torch.stack([omega, 0.1 * torch.ones(())], -1)
            phi = pyro.sample("phi", dist.Normal(mean, scale).to_event(1))
            y = cohort["y"]
            prediction = phi[..., :1] + phi[..., 1:] * y.times
            law = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", law, obs=y.values)

    other = pa.fit_population(flat, linear_guide, linear, num_draws=500, retrain=False, seed=1)
    data = {}
    for name, one in {"full": fit, "flat": other}.items():
        draws = pa.sample_population(one, num_draws=400, num_proposals=1500, seed=1)
        data[name] = to_arviz(draws)
        assert data[name]["posterior"]["phi"].shape == (1, 400, 40, 2)
    with warnings.catch_warnings():  # a Pareto k of 0.62 is one too many for 400 draws
        warnings.simplefilter("ignore")
        found = arviz.loo(data["full"], pointwise=True)
    structure, total = fit.structure, fit.marginal.log_likelihood.sum()
    elpd = float(found.elpd_loo if hasattr(found, "elpd_loo") else found.elpd)
    assert 2 < float(total) - elpd < 10
    draws = pa.sample_population(fit, num_draws=400, num_proposals=1500, seed=1)
    exact = torch.stack(
        [exact_log_marginal(linear, structure.constrain_population(v)) for v in draws.vectors]
    )
    left_out = -(torch.logsumexp(-exact, 0) - math.log(400))
    assert elpd == pytest.approx(float(left_out.sum()), abs=0.5)
    with warnings.catch_warnings():  # of pandas, about ArviZ
        warnings.simplefilter("ignore")
        table = arviz.compare(data)
    assert table.index[0] == "full"


def test_every_group_is_exported(fit, linear):
    data = to_arviz(fit, num_draws=80, num_prior_draws=30, seed=3)
    num = linear.num_observations
    assert data["prior"]["phi"].shape == (1, 30, 40, 2)
    assert data["prior"]["omega"].shape == (1, 30, 2)
    assert data["prior_predictive"]["y"].shape == (1, 30, num)
    assert set(data["log_prior"].data_vars) == {"phi", "mean", "omega", "sigma"}
    likelihood, stats = data["log_likelihood"], data["sample_stats"]
    assert likelihood["y"].shape == (1, 80, num)
    rows = np.asarray(likelihood["y_individual"])
    first = np.asarray(likelihood["y"])[0][:, rows == linear.ids[0]].sum(1)
    assert np.allclose(first, np.asarray(likelihood["individual_log_likelihood"])[0, :, 0])
    weight = np.asarray(stats["log_p"]) - np.asarray(stats["log_q"])
    assert np.allclose(weight, np.asarray(stats["log_weight"]))
    attributes = data["posterior"].attrs
    assert attributes["model"] == "linear_program"
    assert len(attributes["model_hash"]) == 16
    mean = np.asarray(data["posterior"]["mean"])[0, 5]
    middle = torch.tensor([0.5, 0.5]).double()
    expected = torch.distributions.Normal(middle, 1.0).log_prob(torch.tensor(mean)).sum()
    assert float(data["log_prior"]["mean"][0, 5]) == pytest.approx(float(expected))


def test_loo_of_observations_and_of_individuals(fit):
    data = to_arviz(fit, num_draws=200, num_prior_draws=0)
    assert "prior" not in data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = arviz.loo(data, var_name="y")
    elpd = float(found.elpd_loo if hasattr(found, "elpd_loo") else found.elpd)
    assert math.isfinite(elpd)


def test_an_amortized_mcmc_is_exported(linear, linear_guide):
    mcmc = pa.AmortizedMCMC(linear_program, linear_guide, 60, num_draws=200, seed=1)
    mcmc.run(linear)
    data = to_arviz(mcmc, num_prior_draws=0)
    assert data["posterior"]["phi"].shape == (1, 60, 40, 2)
    assert data["posterior_predictive"]["y"].shape == (1, 60, linear.num_observations)
    assert data["log_likelihood"]["individual_log_likelihood"].shape == (1, 60, 40)


def test_a_calibration_is_exported(calibration):
    data = to_arviz(calibration)
    assert data["prior_sbc"]["truth"].shape == data["sample_stats"]["ranks"].shape
    assert list(np.asarray(data["prior_sbc"]["parameter"])) == calibration.names


def test_arviz_draws_and_judges_what_is_exported(fit):
    """On both major versions, whose figures have other names."""
    plt.switch_backend("Agg")
    data = to_arviz(fit, num_draws=100, num_prior_draws=20)
    old = hasattr(arviz, "plot_ppc")
    figures = [
        lambda: arviz.plot_forest(data, var_names=["omega"]),
        lambda: arviz.plot_pair(data, var_names=["mean", "sigma"]),
        lambda: (
            arviz.plot_ppc(data, var_names=["y"])
            if old
            else arviz.plot_ppc_dist(data, var_names=["y"])
        ),
        lambda: (
            arviz.plot_loo_pit(data, y="y") if old else arviz.plot_loo_pit(data, var_names=["y"])
        ),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for draw in figures:
            assert draw() is not None
    plt.close("all")
