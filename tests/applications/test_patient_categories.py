"""Patients whose categories have other numbers than those of the data of the population."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedError

from .kit import STEADY, patients

PLAN = nlme.regimen(1, 12, 2)
RANGE = (10.0, 2000.0)


def by_sex(cohort):
    """A bolus; clearance is 4, in women 2."""
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        center = torch.where(cohort.covariates["sex"] == 0, 2.0, 4.0).log()
        cl = pyro.sample("phi", dist.Normal(center, omega)).exp()
        y = cohort["y"]
        f = nlme.one_compartment(y.times, cohort.doses, cl=cl, v=torch.full_like(cl, 20.0))
        error = nlme.additive_error(f, torch.tensor(0.1))
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def test_categories_of_patients_are_those_of_the_data_by_name():
    """A table of men alone numbers them 0, as women are in the data of the population."""
    covariates = {"sex": torch.tensor([0.0, 1.0])}
    data = patients(2, covariates=covariates, categories={"sex": ("F", "M")})
    source = pa.population(by_sex, {"omega": 0.01}, cohort=data)
    nothing = [[False] * 3]
    man, other = (
        patients(observed=nothing, covariates={"sex": torch.zeros(1)}, categories={"sex": (name,)})
        for name in ("M", "X")
    )
    options = {"target": pa.Target.auc(40, 60, window=STEADY), "regimen": PLAN, "num_draws": 200}
    result = pa.recommend(source, man, RANGE, **options)
    assert float(result.amounts[0]) == pytest.approx(4 * math.sqrt(2400), rel=0.01)
    course = pa.simulate(
        source,
        nlme.regimen(100.0),
        covariates=man,
        num_individuals=1,
        uncertainty="none",
        times=[4.0],
    )
    (prediction,) = course.prediction.values()
    assert float(prediction.squeeze()) == pytest.approx(5 * math.exp(-0.8), rel=0.01)
    with pytest.raises(AmortizedError, match="'sex' is 'X'"):
        pa.recommend(source, other, RANGE, **options)
