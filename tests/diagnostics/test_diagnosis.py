"""The battery flags what is wrong and passes what is right."""

import warnings
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import kstest

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate, check_data, diagnose, influence, residuals
from pyro_amortized.diagnostics.residual_analysis import _distribution_errors
from pyro_amortized.diagnostics.uniformity_tests import (
    independence_p_value,
    simultaneous_band,
    uniform_p_value,
)
from pyro_amortized.errors import CohortError, GuideError, TrainingError
from tests.exact import TRUTH, exact_posterior, linear_cohort, linear_program


@pytest.fixture(scope="module")
def diagnosis(fit):
    return diagnose(fit, num_individuals=200, num_draws=400, seed=1)


# Tests of uniformity.


def test_p_values_of_uniform_numbers_are_uniform():
    rng = np.random.default_rng(1)
    p = uniform_p_value(rng.random((200, 300)))
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert uniform_p_value(rng.random((200, 1)) ** 1.5)[0] < 0.01
    points, low, high = simultaneous_band(200)
    curves = (rng.random((200, 300))[None] <= points[:, None, None]).mean(1)
    whole = ((low[:, None] <= curves) & (curves <= high[:, None])).all(0).mean()
    assert 0.91 < whole < 0.99


def test_levels_that_depend_on_the_data_are_seen():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2))
    assert independence_p_value(rng.random(300), x) > 0.001
    assert independence_p_value(1 / (1 + np.exp(-x[:, 0])), x) < 1e-6


# The battery.


def test_a_good_guide_and_fit_pass(diagnosis):
    assert diagnosis.passed, diagnosis.verdict
    names = {c.name for c in diagnosis.checks}
    assert {"ranks, corrected", "influence of parameters", "residuals of y"} <= names
    assert len(diagnosis.table()) == len(diagnosis.checks)
    assert diagnosis.data is not None
    assert diagnosis.data.outside == []


def test_an_undertrained_guide_is_flagged(linear):
    options = pa.TrainingOptions(max_epochs=1, batch_size=256)
    guide = pa.train(
        linear_program, linear, num_simulations=600, seed=1, options=options, progress=False
    )
    found = diagnose(guide, linear, num_individuals=150, num_draws=300, seed=1)
    assert found.status("efficiency of the guide") == "failed"
    assert not found.passed
    assert "train it longer" in found.verdict
    assert found.status("ranks, corrected") != "failed"


def test_a_parameter_that_the_simulator_ignores_is_flagged(linear):
    def idle(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))
            y = cohort["y"]
            prediction = phi[..., :1] + phi[..., 1:2] * y.times
            law = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", law, obs=y.values)

    options = pa.TrainingOptions(max_epochs=2, batch_size=256)
    guide = pa.train(idle, linear, num_simulations=8000, seed=1, options=options, progress=False)
    found = diagnose(guide, linear, num_individuals=120, num_draws=300, seed=1)
    assert found.status("influence of parameters") == "failed"
    assert "phi[2]" in found.verdict
    moves = influence(guide, pa.Resample(linear), seed=1)
    assert moves["phi[2]"] == 0.0
    assert min(moves[n] for n in ("phi[0]", "phi[1]", "sigma")) > 0.05


def test_a_wrong_residual_error_is_flagged(linear_guide):
    """Errors that grow with the prediction, fitted as if they were equal."""
    cohort = linear_cohort(num=60, width=8, missing=0.0, seed=3)
    generator = torch.Generator().manual_seed(0)
    phi = TRUTH["mean"] + TRUTH["omega"] * torch.randn(60, 2, generator=generator).double()
    clean = phi[:, :1] + phi[:, 1:] * cohort["y"].times
    noise = torch.randn(60, 8, generator=generator).double()
    cohort = cohort.with_values({"y": clean + 0.35 * clean.abs() * noise})
    with warnings.catch_warnings():  # more values than in training
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(linear_program, linear_guide, cohort, num_draws=500, seed=1)
    found = diagnose(fit, num_individuals=120, num_draws=300, seed=1)
    assert found.status("residuals of y") == "failed"
    assert "spread over predictions" in found.verdict


def test_a_guide_alone_needs_a_design(linear_guide):
    with pytest.raises(TrainingError, match="without data"):
        diagnose(linear_guide)


# Calibration by group, jointly, locally.


def test_calibration_by_group(linear, linear_guide):
    design = pa.Resample(linear, pa.RandomMissing(0.0, 0.6))
    found = calibrate(linear_guide, design, num_individuals=400, num_draws=400, seed=1)
    sparse = found.where(found.share_missing > 0.4)
    assert 20 < len(sparse) < 390
    assert len(sparse.ess) == len(sparse) == len(sparse.truth)
    assert all(p > 1e-3 for p in sparse.uniform_p_values().values())
    assert found.tarp_p_value() > 1e-3
    assert min(found.local_p_values().values()) > 1e-3
    assert all(0 < x < 1 for x in found.contraction().values())
    rich = found.where(found.num_recorded >= 5)
    assert rich.contraction()["phi[1]"] > sparse.contraction()["phi[1]"]
    assert all(x > 0.5 for x in found.recovery().values())


def test_errors_that_cancel_are_seen_locally(linear, linear_guide):
    """Posterior means are drawn to the middle where they are high, away where they are low."""
    found = calibrate(linear_guide, linear, num_individuals=400, num_draws=400, seed=1)
    shifted = (found.levels + 0.15 * (found.means - found.means.mean(0)).sign()).clamp(0.001, 0.999)
    wrong = replace(found, levels=shifted)
    assert min(wrong.local_p_values().values()) < 1e-6


# Data against training.


def test_clean_data_are_inside(linear_guide, linear, fit):
    found = check_data(linear_guide, linear, population=fit.estimates)
    assert found.outside == []
    assert "All 40" in found.verdict
    for seed in range(3):
        other = linear_cohort(num=40, seed=100 + seed)
        other = other[other["y"].observed.sum(1) <= 6]  # as many as in training
        assert len(check_data(linear_guide, other, population=TRUTH).outside) <= 1


def test_shifted_data_and_wrong_units_are_found(linear_guide, linear):
    for values in (linear["y"].values + 40, 1000 * linear["y"].values):
        found = check_data(linear_guide, linear.with_values({"y": values}))
        assert len(found.outside) > 30
        assert "in training" in found.verdict


def test_an_unseen_pattern_is_found(linear_guide, linear):
    late = pa.Series(linear["y"].times + 50, linear["y"].values, linear["y"].observed)
    cohort = pa.Cohort({"y": late}, ids=linear.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        found = check_data(linear_guide, cohort)
    assert len(found.outside) > 30
    assert "recorded time" in found.verdict


def test_a_wrong_model_is_found(linear_guide):
    """Waves, where the model knows straight lines: one individual among many."""
    cohort = linear_cohort(num=40, missing=0.0, seed=5)
    cohort = cohort[cohort["y"].observed.sum(1) <= 6]
    values = cohort["y"].values.clone()
    rich = int(cohort["y"].observed.sum(1).argmax())
    values[rich] = 1 + 2.5 * torch.sin(4 * cohort["y"].times[rich])
    found = check_data(linear_guide, cohort.with_values({"y": values}), population=TRUTH)
    assert cohort.ids[rich] in found.outside
    assert "hardly produces" in "".join(found.reasons[cohort.ids[rich]])
    assert len(found.outside) <= 2
    table = found.table()
    assert table.loc[cohort.ids[rich], "predictive p"] < 0.002


def test_too_few_simulations_for_a_check(linear_guide, linear):
    with pytest.raises(GuideError, match="num_simulated"):
        check_data(linear_guide, linear, num_simulated=5)


# Residuals.


def test_predictions_and_residuals_against_closed_forms(fit, linear):
    r = residuals(fit, seed=1)
    mean, _ = exact_posterior(linear, fit.estimates)
    y = linear["y"]
    exact = mean[:, :1] + mean[:, 1:] * y.times
    sigma = fit.estimates["sigma"]
    assert (r.individual - exact[y.observed]).abs().max() < 0.25 * sigma
    assert torch.allclose(r.iwres, (r.observed - r.individual) / sigma)
    line = fit.estimates["mean"][0] + fit.estimates["mean"][1] * y.times
    assert (r.population - line[y.observed]).abs().max() < 0.3
    assert list(r.table().columns[:4]) == ["ID", "TIME", "DV", "CENS"]
    assert len(r.table()) == linear.num_observations
    assert not r.censored.any()


def test_npde_of_the_right_model_are_standard_normal():
    """Over cohorts of the truth; pd of one individual hang together, npde do not."""
    generator = torch.Generator().manual_seed(1)
    times = torch.linspace(0, 3, 6).double()

    def draw(num):
        phi = TRUTH["mean"] + TRUTH["omega"] * torch.randn(num, 2, generator=generator).double()
        noise = TRUTH["sigma"] * torch.randn(num, 6, generator=generator).double()
        return phi[:, :1] + phi[:, 1:] * times + noise

    values = draw(300)
    simulated = draw(300 * 500).reshape(500, 300, 6)
    seen = torch.ones(300, 6, dtype=torch.bool)
    share, npde = _distribution_errors(values, seen, simulated, generator)
    assert kstest(npde.flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.corrcoef(npde.T).triu(1).abs().max() < 0.25
    assert torch.corrcoef(share.T)[4, 5] > 0.5


def test_npde_of_counts_are_standard_normal():
    generator = torch.Generator().manual_seed(1)

    def draw(num):
        rate = torch.randn(num, 1, generator=generator).double().mul(0.5).exp()
        return torch.poisson(rate.expand(-1, 4).contiguous(), generator=generator)

    seen = torch.ones(300, 4, dtype=torch.bool)
    simulated = draw(300 * 500).reshape(500, 300, 4)
    _, npde = _distribution_errors(draw(300), seen, simulated, generator)
    assert kstest(npde.flatten().numpy(), "norm").pvalue > 1e-3


def test_series_that_are_not_there(fit):
    with pytest.raises(CohortError, match="cannot be shown"):
        residuals(fit, series="z")
