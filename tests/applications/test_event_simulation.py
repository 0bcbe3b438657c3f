"""Simulation, doses and designs of models with events, visits and incomplete covariates."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm

import pyro_amortized as pa
from pyro_amortized import nlme

NUM = 2000
VALUES = {"typical": -1.0, "omega": 0.5, "effect": -0.5}


def model(cohort):
    """One event, which visits find in some individuals; a frailty; late entry."""
    typical = pyro.sample("typical", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, omega))
        rate = (b + effect * cohort.covariates["arm"]).exp()
        begin = cohort.covariates["begin"]
        visits = cohort.time_varying["visits"]
        death = cohort["death"]
        hazard = nlme.exponential_hazard(rate)
        law = nlme.EventTimes(hazard, death, begin=begin, visits=visits)
        pyro.sample("death", law, obs=death.values)


def cohort():
    lower, upper = [0.0, 1.0, 2.0, 3.0] * 10, [1.0, 2.0, 4.0, math.inf] * 10
    series, visits = nlme.interval_series(lower, upper)
    arm = torch.arange(40) % 2
    return pa.Cohort(
        {"death": series},
        covariates={"arm": arm.double(), "begin": torch.zeros(40)},
        time_varying={"visits": visits},
    )


@pytest.mark.parametrize("begin", [0.0, 1.5])
def test_the_probability_of_no_event_is_that_of_quadrature(begin):
    known = pa.population(model, VALUES, cohort=cohort())
    times = torch.tensor([0.0, 1.0, 2.0, 4.0]).double()
    simulated = pa.simulate(
        known,
        {"a": nlme.regimen(1.0, 24)},
        covariates={"arm": 1.0, "begin": begin},
        num_individuals=NUM,
        num_draws=1,
        times=times,
        uncertainty="individuals",
        seed=1,
    )
    assert simulated.quantity == "death"
    found = simulated.prediction["a"][0]
    x, w = np.polynomial.hermite_e.hermegauss(40)
    rate = np.exp(-1.5 + 0.5 * x)
    since = np.maximum(times.numpy() - begin, 0.0)
    exact = (w @ np.exp(-rate[:, None] * since)) / w.sum()
    error = found.std(0).numpy() / math.sqrt(NUM)
    assert (np.abs(found.mean(0).numpy() - exact) <= 4 * error + 1e-12).all()


def test_what_a_fit_held_is_not_planned_for():
    fit = pa.fit_population(
        model, cohort(), fixed={"omega": torch.tensor(0.5)}, seed=1, progress=False
    )
    held = pa.evaluate_designs(fit, cohort(), num_simulated=100)["design"]
    assert held.standard_errors["omega"] == 0.0
    free = pa.evaluate_designs(fit, cohort(), fixed=(), num_simulated=100)["design"]
    assert free.standard_errors["omega"] > 0.1
    assert held.standard_errors["typical"] < free.standard_errors["typical"]


def joint(cohort):
    """A weight that some individuals lack, a decay, and a dropout that the decay drives."""
    rate = pyro.sample("rate", dist.LogNormal(-1.0, 0.5))
    mean = pyro.sample("mean", dist.Normal(4.2, 0.2))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        z = pyro.sample("z", dist.Normal(0.0 * mean, 1.0))
        b = pyro.sample("b", dist.Normal(0.0 * rate, 0.3))
        weight, y, left = cohort["weight"], cohort["y"], cohort["y_dropout"]
        law = dist.LogNormal(mean[..., None], 0.2).expand(weight.values.shape)
        pyro.sample("weight", law.mask(weight.observed).to_event(1), obs=weight.values)
        size = nlme.completed(weight, (mean + 0.2 * z).exp())
        k = rate * b.exp()

        def level(times):
            return size[..., None] * torch.exp(-k[..., None] * times)

        error = dist.Normal(level(y.times), sigma[..., None]).mask(y.observed)
        pyro.sample("y", error.to_event(1), obs=y.values)
        hazard = nlme.integrated_hazard(lambda t: level(t) / 70 - 3)
        pyro.sample("y_dropout", nlme.EventTimes(hazard, left), obs=left.values)


def joint_cohort():
    times = torch.tensor([1.0, 2.0, 4.0]).double().expand(6, -1).clone()
    weight = torch.tensor([50.0, 60.0, 70.0, 80.0, 90.0, torch.nan]).double()[:, None]
    return pa.Cohort(
        {
            "weight": pa.Series(torch.zeros(6, 1).double(), weight),
            "y": pa.Series(times, weight.nan_to_num(70.0) * torch.exp(-0.35 * times)),
            "y_dropout": nlme.event_series(torch.full((6,), 5.0), torch.zeros(6)),
        }
    )


def test_incomplete_covariates_and_dropouts_are_kept_in_a_simulation():
    values = {"rate": 0.35, "mean": 4.2, "sigma": 1.0}
    known = pa.population(joint, values, cohort=joint_cohort())
    plan = {"a": nlme.regimen(1.0, 24)}
    seen = pa.simulate(
        known, plan, conditional_on=joint_cohort(), num_draws=50, times=[0.0, 2.0], quantity="y"
    )
    start = seen.prediction["a"][..., 0]
    # A weight that was recorded is the start after the follow-up; the clock goes on from 5.
    share = start[:, :5] / torch.tensor([50.0, 60.0, 70.0, 80.0, 90.0])
    assert (share > 0.03).all()
    assert (share < 0.6).all()
    assert float(share.std(1).mean()) < 0.2
    new = pa.simulate(
        known,
        plan,
        num_individuals=200,
        num_draws=1,
        times=[0.0],
        uncertainty="individuals",
        quantity="y",
    )
    weights = new.prediction["a"][0, :, 0]
    drawn = ~torch.isin(weights.round(decimals=6), torch.tensor([50.0, 60, 70, 80, 90]).double())
    assert 0.05 < float(drawn.double().mean()) < 0.3  # one of six individuals lacks the weight
    assert (weights > 20).all()


def treated(cohort):
    """The dose lowers the hazard of death."""
    base = pyro.sample("base", dist.LogNormal(-3.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(0.0, 0.3))
        death, amount = cohort["death"], cohort.doses.amounts.sum(1)
        hazard = nlme.exponential_hazard(base * b.exp() / (1 + amount / 100))
        pyro.sample("death", nlme.EventTimes(hazard, death), obs=death.values)


def test_a_patient_without_samples_gets_the_dose_of_a_survival():
    """The log hazard is normal, with the variances of the base and of the frailty."""
    zero = torch.zeros(1, 1).double()
    record = nlme.event_series(torch.tensor([30.0]).double(), torch.zeros(1))
    design = pa.Cohort({"death": record}, pa.Doses(zero, zero + 100.0))
    errors = {"base": 0.05 * 0.2}
    known = pa.population(treated, {"base": 0.05}, standard_errors=errors, cohort=design)
    target = pa.Target.trough(low=0.5, window=pa.Exposure(0, 30), quantity="death")
    result = pa.recommend(
        known, None, (10.0, 5000.0), target=target, probability=0.8, num_draws=3000, seed=1
    )
    rate = 0.05 * math.exp(norm.ppf(0.8) * math.hypot(0.3, 0.2))
    exact = 100 * (30 * rate / math.log(2) - 1)
    error = float(result.amount_errors[0])
    assert abs(float(result.amounts[0]) - exact) < 4 * error < 0.1 * exact
