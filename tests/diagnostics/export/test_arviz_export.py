"""Every result is exported with its groups and dimensions, and ArviZ can use it."""

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
from pyro_amortized.diagnostics import (
    to_arviz,
)
from tests.exact import TRUTH, exact_log_marginal, linear_program


@pytest.fixture(scope="module")
def fit(linear, linear_guide):
    return pa.fit_population(linear_program, linear, guide=linear_guide, start=TRUTH, num_draws=300)


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
    with xarray.open_dataset(path, group="posterior") as read:
        assert np.allclose(read["mean"], posterior["mean"])
        assert read.attrs["estimator"] == "corrected"
        assert read.attrs["seed"] == 3
        assert read.attrs["torch_version"] == version("torch")


def test_arviz_summarises(fit):
    with np.errstate(all="ignore"):
        table = arviz.summary(to_arviz(fit, num_draws=100), var_names=["sigma"], kind="stats")
    assert float(table["mean"].iloc[0]) == pytest.approx(float(fit.estimates["sigma"]), rel=0.1)


def test_individual_posteriors_export_alone(fit):
    data = to_arviz(fit.individuals, num_draws=50)
    assert set(data["posterior"].data_vars) == {"phi"}


@pytest.mark.slow
def test_models_are_compared_leaving_out_one_individual_at_a_time(linear, linear_guide, fit):
    """Compared with the exact likelihood at the same draws of the population."""

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
            distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    other = pa.fit_population(
        flat, linear, guide=linear_guide, num_draws=200, retrain=False, seed=1
    )
    data, draws = {}, {}
    for name, one in {"full": fit, "flat": other}.items():
        draws[name] = pa.sample_population(one, num_draws=120, num_proposals=250, seed=1)
        data[name] = to_arviz(draws[name])
        assert data[name]["posterior"]["phi"].shape == (1, 120, 40, 2)
    with warnings.catch_warnings():  # a Pareto k above the limit for so few draws
        warnings.simplefilter("ignore")
        loo = arviz.loo(data["full"], pointwise=True)
    structure, total = fit.structure, fit.marginal.log_likelihood.sum()
    elpd = float(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)
    assert 2 < float(total) - elpd < 10
    vectors = draws["full"].vectors
    exact = torch.stack(
        [exact_log_marginal(linear, structure.constrain_population(v)) for v in vectors]
    )
    left_out = -(torch.logsumexp(-exact, 0) - math.log(120))
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
        loo = arviz.loo(data, var_name="y")
    elpd = float(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)
    assert math.isfinite(elpd)


@pytest.mark.slow
@pytest.mark.usefixtures("small_populations")
def test_an_amortized_mcmc_is_exported(linear, linear_guide):
    few = linear[:15]
    mcmc = pa.AmortizedMCMC(linear_program, 30, guide=linear_guide, num_draws=100, seed=1)
    mcmc.run(few)
    data = to_arviz(mcmc, num_prior_draws=0)
    assert data["posterior"]["phi"].shape == (1, 30, 15, 2)
    assert data["posterior_predictive"]["y"].shape == (1, 30, few.num_observations)
    likelihood = data["log_likelihood"]
    assert likelihood["individual_log_likelihood"].shape == (1, 30, 15)
    # Log p(y_ij | phi_i, sigma) of each observation, at the draws of the same place.
    phi, sigma = (torch.tensor(np.asarray(data["posterior"][n])[0]) for n in ("phi", "sigma"))
    rows, times = (
        x[few["y"].observed] for x in (torch.arange(15)[:, None].expand(15, 8), few["y"].times)
    )
    mean = phi[:, rows, 0] + phi[:, rows, 1] * times
    values = few["y"].values[few["y"].observed]
    exact = torch.distributions.Normal(mean, sigma[:, None]).log_prob(values)
    assert np.allclose(np.asarray(likelihood["y"])[0], exact.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("y", "individual_log_likelihood"):
            loo = arviz.loo(data, var_name=name)
            elpd = float(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)
            assert math.isfinite(elpd)


def test_a_calibration_is_exported(calibration):
    data = to_arviz(calibration)
    assert data["prior_sbc"]["truth"].shape == data["sample_stats"]["ranks"].shape
    assert list(np.asarray(data["prior_sbc"]["parameter"])) == calibration.names


def test_figures_of_arviz_can_be_drawn(fit):
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
