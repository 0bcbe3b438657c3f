"""Arms that differ by covariates, and units of a level that nobody saw, against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import parameter_table
from pyro_amortized.errors import FitError, SettingError
from tests.population.test_level_fit import TRUTH, linear, sites


def response(cohort):
    """The dose acts on the curve and on the mean of the individual parameter."""
    base = pyro.sample("base", dist.Normal(0.0, 2.0))
    shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    dose, age = cohort.covariates["dose"], cohort.covariates["age"]
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(base + shift * dose, omega))
        y = cohort["y"]
        curve = (b + 0.1 * age)[..., None] + (2.0 * dose)[..., None] * y.times
        pyro.sample("y", dist.Normal(curve, 0.1).mask(y.observed).to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def known():
    times = torch.tensor([0.0, 1.0, 4.0]).double().expand(6, -1).clone()
    covariates = {"dose": torch.zeros(6), "age": torch.arange(6.0)}
    cohort = pa.Cohort({"y": pa.Series(times, torch.ones_like(times))}, covariates=covariates)
    return pa.population(response, {"base": 1.0, "shift": 0.5, "omega": 0.3}, cohort=cohort)


def test_arms_are_compared_on_the_same_individuals(known):
    arms = {"placebo": {"dose": 0.0}, "two": {"dose": 2.0}}
    result = pa.simulate(known, arms, times=[0.0, 3.0], num_individuals=500, seed=1)
    change = result.prediction["two"] - result.prediction["placebo"]
    # 0.5 * 2 by the individual parameters, 2 * 2 * t by the curve, the same for every individual.
    expected = torch.tensor([1.0, 13.0]).double().expand_as(change)
    torch.testing.assert_close(change, expected)
    placebo = result.prediction["placebo"][0, :, 0]
    spread = math.sqrt(0.09 + 0.01 * 35 / 12)  # ages 0 to 5, drawn from the data
    assert abs(float(placebo.mean()) - 1.25) < 4 * spread / math.sqrt(500)
    assert float(placebo.std()) == pytest.approx(spread, rel=4 / math.sqrt(1000))
    assert float(result.exposures["trough"]["two"].mean() - placebo.mean()) == pytest.approx(13.0)


def test_the_window_of_arms_ends_with_the_data(known):
    result = pa.simulate(known, {"placebo": {"dose": 0.0}}, num_individuals=3)
    assert (float(result.times[0]), float(result.times[-1])) == (0.0, 4.0)
    assert not bool(result.exposures["tmax"]["placebo"].any())  # a constant, without rounding


@pytest.mark.parametrize(
    ("regimens", "options", "words"),
    [
        ({"a": {"dosis": 1.0}}, {}, "dosis"),
        ({"dose": 1.0}, {}, "covariates of each arm"),
        (None, {}, "covariates of each arm"),
        ({"a": {"dose": 1.0}}, {"conditional_on": True}, "The arm 'a'"),
        ({"a": {"dose": [1.0, 2.0]}}, {"num_individuals": 5}, "shape"),
    ],
)
def test_wrong_arms_are_named(known, regimens, options, words):
    if "conditional_on" in options:
        options = {"conditional_on": known.cohort}
    with pytest.raises(SettingError, match=words):
        pa.simulate(known, regimens, **options)


@pytest.fixture(scope="module")
def level():
    return pa.fit_levels(linear, sites(linear), num_draws=60, seed=1)


def test_new_units_have_effects_of_their_own(level):
    design = nlme.study([1.0], num_individuals=400, covariates={"site": [0.0, 1.0] * 200})
    result = pa.simulate(level, design, num_draws=300, seed=2)
    x = result.prediction["design"][..., 0]
    means = torch.stack([x[:, ::2].mean(1), x[:, 1::2].mean(1)])  # of two new sites in each draw
    mean, tau = level.estimates["mu"], level.estimates["tau"]
    errors = level.standard_errors
    # Half the difference of two sites is an effect times sqrt(1/2), with what is known about tau
    # in the mean of its square; the mean of both sites also has the uncertainty of mu.
    between = (means[0] - means[1]).square().mean() / 2
    expected = tau.square() * (1 + 2 * (errors["tau"] / tau).square())
    assert float(between) == pytest.approx(float(expected), rel=0.35)
    spread = math.sqrt(float(between) / 2 + float(errors["mu"]) ** 2) / math.sqrt(300)
    assert abs(float(means.mean()) - float(mean)) < 4 * spread


def test_units_that_were_seen_are_another_question(level):
    with pytest.raises(FitError, match="units that were not seen"):
        pa.simulate(level, nlme.study([1.0]), uncertainty="individuals")
    with pytest.raises(FitError, match="given_effects"):
        pa.simulate(level, nlme.regimen(1.0, 1.0), conditional_on=level.cohort)


def test_a_fit_with_a_level_has_a_table_of_its_parameters(level):
    frame = parameter_table(level).frame()
    assert set(frame.index) == set(TRUTH)
    for name, row in frame.iterrows():
        assert row["estimate"] == pytest.approx(float(level.estimates[name]))
        assert row["se"] == pytest.approx(float(level.standard_errors[name]))
