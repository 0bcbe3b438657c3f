"""Exposures at steady state, against closed forms."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedWarning

from .kit import STEADY, known, weight_model

TWICE = nlme.regimen(100, 12, 3)
# Regimens, windows, and dose over clearance.
TWO_DOSES = nlme.regimen(100, 24, 3) + nlme.regimen(50, 24, 3, start=8)
CASES = [
    (nlme.regimen(100, 12, 5), STEADY, 25.0),
    (nlme.regimen(100, 12, 5), pa.Exposure(0, 24, steady_state=True), 50.0),
    (nlme.regimen(100, 12, 5), pa.Exposure(-12, 12, steady_state=True), 50.0),
    (nlme.regimen(100, 12, 5, 18.0), pa.Exposure(0, 24, steady_state=True), 50.0),
    (TWO_DOSES, STEADY, 37.5),
    (nlme.regimen(2, 12, 5, per="weight"), STEADY, 35.0),
    (nlme.regimen(100, 24, steady_state=True), None, 25.0),
    (
        nlme.regimen(100, 24, steady_state=True) + nlme.regimen(50, 24, start=8, steady_state=True),
        None,
        37.5,
    ),
    (nlme.regimen(100), pa.Exposure(0, 5000), 25.0),
    (nlme.regimen(100, 24, 60), pa.Exposure(0, 3000), 1500.0),
]


@pytest.mark.parametrize("absorbed", [True, False])
def test_exposures_at_steady_state_are_dose_over_clearance(absorbed):
    """Windows longer than the interval, several doses a day, infusions, weights of an amount."""

    def kinetics(cohort):
        cl = pyro.sample("cl", dist.LogNormal(1.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            eta = pyro.sample("eta", dist.Normal(0.0, 0.1))
            y, ka = cohort["y"], torch.ones_like(eta) if absorbed else None
            parts = {"v": 50.0 + 0 * eta, "q": 10.0 + 0 * eta, "v2": 80.0 + 0 * eta}
            f = nlme.two_compartments(
                y.times, cohort.doses, ka=ka, cl=cl.unsqueeze(-1) * eta.exp(), **parts
            )
            error = nlme.additive_error(f, 0.1 + 0 * f[..., :1])
            pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)

    population = pa.population(kinetics, {"cl": 4.0})
    for plan, exposure, exact in CASES:
        result = pa.simulate(
            population,
            plan,
            uncertainty="none",
            exposure=exposure,
            covariates={"weight": 70.0} if plan.per else None,
        )
        area = float(result.exposures["auc"][plan.label])
        assert area == pytest.approx(exact, rel=2e-4), (plan, exposure)
        window = exposure or pa.Exposure()
        target = pa.Target.auc(value=2 * exact, window=window)
        if plan.per is None:
            doses = pa.recommend(
                population,
                None,
                [plan.amounts[-1], 2 * plan.amounts[-1]],
                target=target,
                regimen=plan,
                num_draws=100,
            )
            assert doses.amounts.tolist() == [2 * plan.amounts[-1]]


def test_a_peak_at_steady_state_counts_earlier_doses_of_the_day():
    plan = nlme.regimen(100, 12, 4)
    target = pa.Target.concentration(18.0, value=1.0, steady_state=True)
    (late,) = (float(x) for x in _typical(target, plan))
    (early,) = (
        float(x) for x in _typical(pa.Target.concentration(6.0, value=1.0, steady_state=True), plan)
    )
    assert late == pytest.approx(early, rel=1e-9)


def _typical(target, plan):
    steady = target.regimen_of(plan)
    times, metric = target.nodes(steady)
    result = pa.simulate(
        known(),
        steady,
        uncertainty="none",
        times=times,
        exposure=pa.Exposure(0, 24),
    )
    return metric(result.prediction[steady.label]).flatten()


def test_values_that_are_not_finite_are_no_share():
    with pytest.warns(AmortizedWarning, match="not finite"):
        result = pa.simulate(
            pa.population(weight_model, {"cl": 4.0, "omega": 0.3, "slope": 0.75, "sigma": 0.1}),
            TWICE,
            num_individuals=4,
            covariates={"weight": [70.0, 70.0, -70.0, 70.0]},
        )
    (share,) = result.probability("auc", 0.0)["probability"]
    assert share == 1.0
    assert np.isfinite(result.table["median"]).all()


@pytest.mark.parametrize("steady", [True, False])
def test_two_doses_a_day_at_steady_state_in_an_ode(steady):
    """No dose stands before the time 0 at which an ODE begins."""

    def kinetics(cohort):
        cl = pyro.sample("cl", dist.LogNormal(1.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            eta = pyro.sample("eta", dist.Normal(0.0, 0.1))
            y, k = cohort["y"], cl.unsqueeze(-1) * eta.exp() / 20.0
            x = nlme.solve(
                lambda t, x, p: -p["k"].unsqueeze(-1) * x,
                torch.zeros(1, dtype=torch.float64),
                y.times,
                {"k": k},
                doses=cohort.doses,
            )
            error = nlme.additive_error(x[..., 0] / 20.0, 0.1 + 0 * k.unsqueeze(-1))
            pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)

    population = pa.population(kinetics, {"cl": 4.0})
    options = {} if steady else {"num": 3}
    parts = [
        nlme.regimen(amount, 24, start=start, steady_state=steady, **options)
        for amount, start in ((100, 0.0), (50, 8.0))
    ]
    plan = parts[0] + parts[1]
    exposure = None if steady else STEADY
    result = pa.simulate(population, plan, uncertainty="none", exposure=exposure)
    assert float(result.exposures["auc"][plan.label]) == pytest.approx(37.5, rel=1e-4)
    target = pa.Target.auc(value=75.0, window=exposure or pa.Exposure())
    found = pa.recommend(
        population, None, [50.0, 100.0], target=target, regimen=plan, num_draws=100
    )
    assert found.names == ("100",)
