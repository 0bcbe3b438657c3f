"""Recommended doses against closed forms: at steady state AUC is dose / CL."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedError, AmortizedWarning

from .kit import SD, STEADY, known, model, patients, weight_model

PLAN = nlme.regimen(1, 12, 2)
RANGE = (10.0, 2000.0)
Z = norm.ppf(0.9)


def auc(low=None, high=None, **options):
    return pa.Target.auc(low, high, window=STEADY, **options)


@pytest.mark.parametrize(
    ("target", "options", "exact"),
    [
        (auc(low=50), {"probability": 0.9}, 200 * math.exp(Z * SD)),
        (auc(high=60), {"probability": 0.9}, 240 * math.exp(-Z * SD)),
        (auc(40, 60), {}, 4 * math.sqrt(2400)),
        (auc(value=50), {}, 200.0),
        (auc(value=50), {"loss": lambda x: (x - 50).square()}, 200 * math.exp(-1.5 * SD**2)),
    ],
)
def test_doses_of_the_population_alone(target, options, exact):
    result = pa.recommend(known(), None, RANGE, target=target, regimen=PLAN, seed=1, **options)
    amount, error = float(result.amounts[0]), float(result.amount_errors[0])
    assert error < 0.006 * exact
    assert abs(amount - exact) < 4 * error
    assert bool(result.inside[0])
    assert result.regimens[0].amounts[-1] == pytest.approx(amount)
    if "probability" in options:
        assert abs(float(result.probability[0]) - 0.9) < 4 * float(result.probability_errors[0])


def test_probability_of_a_range_in_closed_form():
    result = pa.recommend(known(), None, [100, 200], target=auc(40, 60), regimen=PLAN, seed=1)
    assert result.names == ("200",)
    for place, dose in enumerate((100, 200)):
        ends = [math.log(dose / (4 * x)) / SD for x in (40, 60)]
        exact = norm.cdf(ends[0]) - norm.cdf(ends[1])
        candidates = result.candidates
        error = float(candidates.probability_error[place, 0])
        assert abs(float(candidates.probability[place, 0]) - exact) < 4 * error
    assert "200" in repr(result)
    assert len(result.to_dataframe()) == 2


def test_nonlinear_metrics_are_solved_by_added_knots():
    """The time above a threshold is no power of the dose: the root is checked by simulation."""
    target = pa.Target.time_above(1.0, low=0.5, window=pa.Exposure(0, 12))
    plan = nlme.regimen(1, 12, 2)
    result = pa.recommend(known(), None, RANGE, target=target, regimen=plan, probability=0.8)
    exposure = pa.Exposure(0, 12, above=1.0)
    again = pa.simulate(
        known(), result.regimens[0], exposure=exposure, num_individuals=20_000, seed=2
    )
    (name,) = again.regimens
    share = float((again.exposures["time_above"][name] >= 6).double().mean())
    assert abs(share - 0.8) < 0.03


def test_samples_narrow_the_posterior():
    data = patients(3, [[True] * 3, [False] * 3, [True, False, False]])
    result = pa.recommend(
        known(), data, RANGE, target=auc(low=50), regimen=PLAN, probability=0.9, num_draws=1000
    )
    low, _, high = result.metric_quantiles
    width = (high / low).log()
    assert width[0] < width[2] < width[1]
    assert float(width[1]) == pytest.approx(2 * 1.645 * SD, rel=0.1)
    assert list(result.table["individual"]) == ["1", "2", "3"]


def test_candidates_may_be_regimens():
    plans = {"once": nlme.regimen(400, 24), "twice": nlme.regimen(200, 12, 2)}
    target = pa.Target.smallest(low=0.5, window=pa.Exposure(0, 24))
    result = pa.recommend(known(), None, plans, target=target, probability=0.5, num_draws=500)
    assert set(result.candidates.names) == set(plans)
    listed = pa.recommend(
        known(), None, list(plans.values()), target=target, probability=0.5, num_draws=500
    )
    assert torch.equal(listed.probability, result.probability)


def test_ends_of_the_range_are_said():
    options = {"regimen": PLAN, "probability": 0.9, "num_draws": 500}
    never = pa.recommend(known(), None, (1.0, 2.0), target=auc(low=50), **options)
    assert not bool(never.reached[0])
    assert "probability not reached" in repr(never)
    always = pa.recommend(known(), None, (1e4, 1e5), target=auc(low=50), **options)
    assert bool(always.reached[0])
    assert not bool(always.inside[0])
    assert "at an end of the range" in repr(always)


def test_earlier_doses_are_kept_after_a_start():
    options = {"target": pa.Target.auc(low=30, window=pa.Exposure(0, 24)), "probability": 0.9}
    washed, after = (
        pa.recommend(known(), patients(), RANGE, num_draws=1000, start=start, **options)
        for start in (None, 24.0)
    )
    assert float(after.amounts[0]) < 0.95 * float(washed.amounts[0])
    of_many = pa.recommend(known(), patients(3)[[1]], RANGE, num_draws=1000, start=24.0, **options)
    assert float(of_many.amounts[0]) == pytest.approx(float(after.amounts[0]), rel=0.02)
    with pytest.raises(AmortizedError, match="regimen begins at 0"):
        pa.recommend(known(), patients(), RANGE, start=0.0, **options)


def test_draws_are_weighted_again_as_samples_arrive():
    options = {"target": auc(low=50), "regimen": PLAN, "probability": 0.9}
    two, three = (patients(observed=[[True, True, last]]) for last in (False, True))
    first = pa.recommend(known(), two, RANGE, num_draws=4000, seed=1, **options)
    again = pa.recommend(known(), three, RANGE, previous=first, **options)
    assert again.reweighted
    fresh = pa.recommend(known(), three, RANGE, num_draws=4000, seed=2, **options)
    error = math.hypot(float(again.amount_errors[0]), float(fresh.amount_errors[0]))
    assert abs(float(again.amounts[0] - fresh.amounts[0])) < 4 * error
    with pytest.raises(AmortizedError, match="the same patients"):
        pa.recommend(known(), patients(2), RANGE, previous=first, **options)
    with pytest.raises(AmortizedError, match="The models of `previous`"):
        pa.recommend({"a": known()}, three, RANGE, previous=first, **options)


def test_models_are_averaged_by_the_likelihood_of_the_samples():
    noisy = pa.population(model, known().estimates | {"b": 0.5})
    models = {"right": known(), "noisy": noisy}
    options = {"target": auc(low=50), "regimen": PLAN, "probability": 0.9, "num_draws": 1000}
    result = pa.recommend(models, patients(), RANGE, seed=1, **options)
    scores = [
        pa.marginal_likelihood(model, patients(), x.estimates, num_draws=4000).total
        for x in models.values()
    ]
    exact = 1 / (1 + math.exp(scores[1] - scores[0]))
    assert float(result.model_weights["right"][0]) == pytest.approx(exact, abs=0.02)
    without = pa.recommend(models, None, RANGE, seed=1, **options)
    assert float(without.model_weights["right"][0]) == pytest.approx(0.5, abs=1e-6)
    given = pa.recommend(
        models, None, RANGE, model_weights={"right": 3.0, "noisy": 1.0}, seed=1, **options
    )
    assert float(given.model_weights["right"][0]) == pytest.approx(0.75, abs=1e-6)
    with pytest.raises(AmortizedError, match="`model_weights` is"):
        pa.recommend(models, None, RANGE, model_weights={"right": 1.0}, **options)


def test_patients_outside_the_model_are_named():
    options = {"target": auc(low=50), "regimen": PLAN, "probability": 0.9, "num_draws": 500}
    with pytest.warns(AmortizedWarning, match="standard deviations from the population"):
        result = pa.recommend(known(), patients(values=(12.0, 11.0, 8.0)), RANGE, **options)
    assert "Outside what the model knows" in repr(result)
    with pytest.warns(AmortizedWarning, match="standard deviations from its prediction"):
        pa.recommend(known(), patients(values=(1.3, 6.0, 0.4)), RANGE, **options)
    light = patients(3, covariates={"weight": torch.tensor([50.0, 60.0, 70.0])})
    limited = pa.population(model, known().estimates, cohort=light)
    with pytest.warns(AmortizedWarning, match="weight 150, in the data of the fit 50 to 70"):
        pa.recommend(limited, {"weight": 150.0}, RANGE, **options)


def occasion_model(cohort):

    y = cohort["y"]
    visits = nlme.occasions(cohort.time_varying["OCC"], y.times)
    with pyro.plate("individual", len(cohort), dim=-1):
        phi = pyro.sample("phi", dist.Normal(torch.zeros(1), 0.2).to_event(1))
        with pyro.plate("occasion", visits.number, dim=-2):
            kappa = pyro.sample("kappa", dist.Normal(0.0, 0.3))
        level = (phi + kappa.T).exp()
        f = cohort.doses.amounts.sum(1, keepdim=True) * nlme.by_occasion(level, visits.index)
        error = nlme.proportional_error(f, torch.tensor(0.01))
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def test_a_new_occasion_has_random_effects_of_its_own():
    """log y / dose = phi + kappa: nearly without error on the last occasion, and with the
    variance of phi given the data, plus that of kappa, on a new one.
    """
    occasion = pa.Series(torch.tensor([[0.0]]).double(), torch.tensor([[1.0]]).double())
    data = patients(values=(130.0, 130.0, 130.0), time_varying={"OCC": occasion})
    options = {"target": pa.Target.concentration(1, low=100), "probability": 0.9}
    population = pa.population(occasion_model, {})
    new, last = (
        pa.recommend(population, data, (20.0, 500.0), occasion=x, num_draws=4000, seed=1, **options)
        for x in ("new", "last")
    )
    assert float(last.amounts[0]) == pytest.approx(100 / 1.3, rel=0.02)
    sd2, kappa2 = 0.04, 0.09
    mean = math.log(1.3) * sd2 / (sd2 + kappa2)
    sd = math.sqrt(sd2 * kappa2 / (sd2 + kappa2) + kappa2)
    exact = 100 * math.exp(Z * sd - mean)
    assert abs(float(new.amounts[0]) - exact) < 4 * float(new.amount_errors[0])


@pytest.mark.parametrize(
    ("patient", "candidates", "options", "message"),
    [
        (None, RANGE, {"target": auc(low=1)}, "one end, and no criterion"),
        (None, RANGE, {"target": "auc"}, "`target` is a str"),
        (
            None,
            RANGE,
            {"target": auc(value=1), "probability": 0.9},
            "`probability` is given for the target",
        ),
        (None, RANGE, {"target": auc(1, 2), "probability": 2.0}, "`probability` is 2.0"),
        (None, (5.0, 1.0), {"target": auc(1, 2)}, "range of amounts goes from 5 to 1"),
        (None, (0.0, 1.0), {"target": auc(1, 2)}, "`candidates` is 0.0"),
        (None, [], {"target": auc(1, 2)}, "There are no candidates"),
        (None, ["a"], {"target": auc(1, 2)}, "`candidates` is 'a'"),
        (None, 3, {"target": auc(1, 2)}, "`candidates` is an int"),
        (3, RANGE, {"target": auc(1, 2)}, "`patient` is an int"),
        ({"weight": [1, 2]}, RANGE, {"target": auc(1, 2)}, "The covariate 'weight' is given"),
        (None, RANGE, {"target": auc(1, 2), "loss": 3}, "`loss` is an int"),
        (None, RANGE, {"target": auc(1, 2), "loss": lambda x: x.sum()}, "The loss returned"),
        (None, RANGE, {"target": pa.Target.auc(1, 2), "regimen": nlme.regimen(1)}, "single dose"),
    ],
)
def test_mistakes_are_named(patient, candidates, options, message):
    options = {"regimen": PLAN, "num_draws": 100} | options
    with pytest.raises(AmortizedError, match=message):
        pa.recommend(known(), patient, candidates, **options)


def test_a_patient_needs_the_covariates_of_the_model():
    values = {"cl": 4.0, "omega": 0.3, "slope": 0.75, "sigma": 0.1}
    population = pa.population(weight_model, values)
    options = {"target": auc(40, 60), "regimen": PLAN, "num_draws": 200}
    result = pa.recommend(population, {"weight": 140.0}, RANGE, **options)
    exact = 4 * 2**0.75 * math.sqrt(2400)
    assert abs(float(result.amounts[0]) - exact) < 4 * float(result.amount_errors[0])
    for patient, message in (
        (None, "The covariate 'weight' is not given, which the model reads"),
        ({"weigth": 70.0}, "The covariate 'weigth' is given"),
        ({"weight": [[1, 2]]}, "Covariate 'weight' has shape"),
        ({"weight": float("nan")}, "Covariate 'weight' is nan"),
    ):
        with pytest.raises(AmortizedError, match=message):
            pa.recommend(population, patient, RANGE, **options)


def test_a_patient_needs_the_series_of_the_model():
    other = pa.Cohort({"z": pa.Series(torch.zeros(1, 1), torch.ones(1, 1))})
    with pytest.raises(AmortizedError, match="The patients have no series 'y'"):
        pa.recommend(known(), other, RANGE, target=auc(1, 2), regimen=PLAN)


def test_amounts_per_weight_need_no_model_that_reads_it():
    """5 mg/kg is 350 mg at 70 kg, also where the parameters do not depend on weight."""
    plan = nlme.regimen(1, 12, 2, per="weight")
    options = {"target": auc(low=50), "probability": 0.9, "num_draws": 500, "seed": 1}
    per_kg = (0.1, 20.0)
    by_weight = pa.recommend(known(), {"weight": 70.0}, per_kg, regimen=plan, **options)
    plain = pa.recommend(known(), None, RANGE, regimen=PLAN, **options)
    assert float(by_weight.amounts[0]) * 70 == pytest.approx(float(plain.amounts[0]), rel=0.02)
    plans = {"a": nlme.regimen(5, 12, 2, per="weight")}
    listed = pa.recommend(known(), {"weight": 70.0}, plans, **options)
    assert listed.names == ("a",)
    with pytest.raises(AmortizedError, match="The covariate 'height' is given"):
        pa.recommend(known(), {"height": 70.0}, RANGE, regimen=plan, **options)


def test_earlier_draws_of_another_population_are_not_weighted_again():
    options = {"target": auc(low=50), "regimen": PLAN, "probability": 0.9, "num_draws": 1000}
    slow = pa.recommend(known(), None, RANGE, seed=1, **options)
    estimates = known().estimates | {"typical": torch.tensor([8.0, 70.0, 1.0]).double()}
    fast = pa.recommend(pa.population(model, estimates), None, RANGE, previous=slow, **options)
    assert not fast.reweighted
    exact = 400 * math.exp(Z * SD)
    assert abs(float(fast.amounts[0]) - exact) < 4 * float(fast.amount_errors[0])


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_candidates_may_be_an_array(kind):
    target = auc(low=50)
    options = {"regimen": PLAN, "probability": 0.9, "num_draws": 200, "target": target}
    result = pa.recommend(known(), None, kind([100.0, 400.0]), **options)
    assert result.names == ("400",)


def test_amounts_may_be_a_column_of_a_table():
    options = {"target": auc(low=50), "regimen": PLAN, "probability": 0.9, "num_draws": 500}
    table = pd.DataFrame({"amount": [100.0, 400.0]})
    for candidates in (table, table["amount"]):
        assert pa.recommend(known(), None, candidates, **options).names == ("400",)


def test_a_table_of_covariates_describes_patients_without_samples():
    population = pa.population(weight_model, {"cl": 4.0, "omega": 0.3, "slope": 0.75, "sigma": 0.1})
    options = {"target": auc(low=50), "regimen": PLAN, "probability": 0.9, "seed": 1}
    table = pd.DataFrame({"weight": [50, 100]})
    result = pa.recommend(population, table, RANGE, num_draws=4000, **options)
    for i, weight in enumerate(table["weight"]):
        exact = 200 * (weight / 70) ** 0.75 * math.exp(Z * 0.3)
        assert abs(float(result.amounts[i]) - exact) < 4 * float(result.amount_errors[i])
    with pytest.raises(AmortizedError, match=r"'weight' is \[70.0, nan\]"):
        pa.recommend(population, {"weight": [70.0, math.nan]}, RANGE, **options)


def test_a_metric_that_no_dose_changes_is_said():
    later = nlme.regimen(1.0, start=5.0)
    target = pa.Target.concentration(1.0, low=1.0)
    with pytest.warns(AmortizedWarning, match="The dose does not change the metric of 1"):
        pa.recommend(
            known(), None, RANGE, target=target, regimen=later, probability=0.9, num_draws=200
        )
