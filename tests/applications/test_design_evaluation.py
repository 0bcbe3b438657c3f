"""Expected errors against the closed form of a linear mixed model."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedError

from .kit import known

NUM, TIMES = 20, [0.0, 1.0, 2.0, 3.0]
LINEAR = {"level": 2.0, "slope": 0.5, "omega": 0.6, "sigma": 0.4}


def linear(cohort):
    """y = level + slope x + eta + error: a random intercept and an effect of a covariate."""
    level = pyro.sample("level", dist.Normal(0.0, 3.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
    omega = pyro.sample("omega", dist.HalfNormal(2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    x = cohort.covariates["x"]
    with pyro.plate("individual", len(cohort)):
        u = pyro.sample("u", dist.Normal(level + slope * x, omega))
        y = cohort["y"]
        f = u.unsqueeze(-1) + 0 * y.times
        error = nlme.additive_error(f, sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def study(times=TIMES, num=NUM):
    x = [j % 2 for j in range(num)]
    return nlme.study(times, num_individuals=num, covariates={"x": x}, series="y")


def exact_errors(num=NUM, per_individual=4):
    """Standard errors of the estimates: means by least squares, standard deviations from the
    information of the between and the within sum of squares.
    """
    between = LINEAR["omega"] ** 2 + LINEAR["sigma"] ** 2 / per_individual
    level = math.sqrt(between / (num / 2))
    slope = math.sqrt(2) * level
    within = num * (per_individual - 1)
    variance_sigma2 = 2 * LINEAR["sigma"] ** 4 / within
    variance_omega2 = 2 * between**2 / num + variance_sigma2 / per_individual**2
    omega = math.sqrt(variance_omega2) / (2 * LINEAR["omega"])
    return [level, slope, omega, math.sqrt(variance_sigma2) / (2 * LINEAR["sigma"])]


def test_expected_errors_of_a_linear_model():
    population = pa.population(linear, LINEAR)
    errors = pa.evaluate_designs(population, study(), num_simulated=400, seed=1)["design"]
    table = errors.table
    assert list(table["parameter"]) == list(LINEAR)
    for exact, row in zip(exact_errors(), table.to_dict("records"), strict=True):
        assert abs(row["standard_error"] - exact) < 4 * row["monte_carlo_error"] + 1e-3 * exact
        assert row["monte_carlo_error"] < 0.03 * exact
    variance = errors.standard_error(lambda p: p["omega"] ** 2)
    assert float(variance) == pytest.approx(2 * 0.6 * float(errors.standard_errors["omega"]))
    assert float(errors.monte_carlo_error(lambda p: p["omega"])) > 0
    assert not errors.undetermined


def test_numbers_schedules_and_power():
    population = pa.population(linear, LINEAR)
    plans = {"four": study(), "two": study(TIMES[:2])}
    result = pa.evaluate_designs(population, plans, num_simulated=200, seed=1)
    four, two = result["four"], result["two"]
    double = four.with_individuals(2 * NUM)
    ratio = double.standard_errors["slope"] / four.standard_errors["slope"]
    assert float(ratio) == pytest.approx(1 / math.sqrt(2))
    assert float(two.standard_errors["sigma"]) > 1.5 * float(four.standard_errors["sigma"])
    assert result.efficiency()["four"] == 1.0
    assert result.efficiency()["two"] < 0.9
    table = result.table([10, 20])
    assert len(table) == 2 * 2 * 4
    z = LINEAR["slope"] / float(four.standard_errors["slope"])
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = float(1 - normal.cdf(torch.tensor(1.96 - z)) + normal.cdf(torch.tensor(-1.96 - z)))
    assert four.power("slope") == pytest.approx(expected, abs=1e-3)
    needed = four.individuals_needed("slope", power=0.9)
    assert four.with_individuals(needed).power("slope") >= 0.899
    assert four.with_individuals(needed - 1).power("slope") < 0.9
    assert "efficiency" in repr(result)
    assert "RSE" in repr(four)
    assert "<table>" in four._repr_html_()
    with pytest.raises(AmortizedError, match="'height' has no expected standard error"):
        four.power("height")
    with pytest.raises(AmortizedError, match="has the null value"):
        four.individuals_needed("slope", null=0.5)


def test_what_a_design_does_not_determine_is_named():
    """With one sample of each individual only the sum of the variances is determined."""
    population = pa.population(linear, LINEAR)
    errors = pa.evaluate_designs(population, study([1.0]), num_simulated=200, seed=1)["design"]
    assert errors.undetermined == ["omega", "sigma"]
    assert "not determined by this design: omega, sigma" in repr(errors)
    assert errors.standard_errors["omega"].isnan()
    assert errors.criterion == 0.0
    total = LINEAR["omega"] ** 2 + LINEAR["sigma"] ** 2
    slope = math.sqrt(2 * total / (NUM / 2))
    assert float(errors.standard_errors["slope"]) == pytest.approx(slope, rel=0.05)
    held = pa.evaluate_designs(population, study([1.0]), fixed="sigma", num_simulated=200, seed=1)[
        "design"
    ]
    assert not held.undetermined
    assert float(held.standard_errors["sigma"]) == 0.0
    alone = math.sqrt(2 / NUM) * total / (2 * LINEAR["omega"])
    assert float(held.standard_errors["omega"]) == pytest.approx(alone, rel=0.1)


@pytest.mark.slow
def test_the_design_of_the_software_comparison():
    """Warfarin-like. PopED (reduced information, first-order) has 4.74, 2.76, 13.93; 25.6, 30.3,
    25.8; 11.2 %. The expected values are from 2,000 simulated individuals, with an error of 0.4 %.
    """
    values = {"typical": [0.15, 8.0, 1.0], "omega": [0.07**0.5, 0.02**0.5, 0.6**0.5], "b": 0.1}
    times = [0.5, 1, 2, 6, 24, 36, 72, 120]
    design = nlme.study(times, nlme.regimen(70), num_individuals=32, series="y")
    population = pa.population(known().model, values)
    errors = pa.evaluate_designs(population, design, num_simulated=320, seed=1)["design"]
    truth = {name: torch.as_tensor(x) for name, x in values.items()}
    expected_rse = {
        "typical": (lambda p: p["typical"], [4.75, 2.76, 14.05]),
        "omega": (lambda p: p["omega"] ** 2, [25.88, 30.26, 27.30]),
        "b": (lambda p: p["b"] ** 2, [11.18]),
    }
    for function, expected in expected_rse.values():
        relative = 100 * errors.standard_error(function) / function(truth)
        assert relative.flatten().tolist() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, "is an int"),
        (({},), {}, "There are no designs"),
        ((None,), {"fixed": ["height"]}, "`fixed` is"),
        ((None,), {"fixed": list(LINEAR)}, "`fixed` is"),
        ((None,), {"num_simulated": 3}, "`num_simulated` is 3"),
        ((None,), {"num_individuals": 0}, "`num_individuals` is 0"),
    ],
)
def test_mistakes_are_named(arguments, options, message):
    population = pa.population(linear, LINEAR)
    design = study() if arguments[0] is None else arguments[0]
    with pytest.raises(AmortizedError, match=message):
        pa.evaluate_designs(population, design, **options)
