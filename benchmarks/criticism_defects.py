"""Defects of studies, models and files, planted in cohorts of a one-compartment model.

A defect changes one step of a simulated study: the parameters of the individuals, their curves, the
errors of the measurements, or what is written down. Each has the names of the checks that are about
it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

import pyro_amortized as pa
from pyro_amortized import nlme

TIMES = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0])
TYPICAL, OMEGA, SIGMA = torch.tensor([0.4, 1.2, 3.6]), torch.tensor([0.4, 0.25, 0.2]), 0.15


@dataclass(frozen=True)
class Study:
    """A simulated study before it is a cohort; shapes start with the individual."""

    phi: Tensor
    times: Tensor
    amounts: Tensor
    covariates: dict[str, Tensor]
    generator: Generator
    values: Tensor | None = None
    observed: Tensor | None = None

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).double()

    def cohort(self) -> pa.Cohort:
        doses = self.doses()
        return pa.Cohort(
            {"y": pa.Series(self.times, self.values, self.observed)}, doses, self.covariates
        )

    def doses(self) -> pa.Doses:
        return pa.Doses(times=torch.zeros(len(self.phi), 1), amounts=self.amounts)


Step = Callable[[Study], Tensor]


def right_curve(study: Study) -> Tensor:
    ka, cl, v = study.phi.exp().unbind(-1)
    return nlme.one_compartment(study.times, study.doses(), ka=ka, cl=cl, v=v)


def right_error(study: Study) -> Tensor:
    return study.values * (1 + SIGMA * study.normal(*study.values.shape))


def as_it_is(study: Study) -> Study:
    return study


@dataclass(frozen=True)
class Defect:
    """What a defect changes, and the checks that are about it."""

    checks: tuple[str, ...]
    population: Callable[[Study], Tensor] = lambda study: study.phi
    curve: Step = right_curve
    error: Step = right_error
    file: Callable[[Study], Study] = as_it_is


def planted(defect: Defect | None, num: int, seed: int) -> pa.Cohort:
    """A cohort with a defect; None is none."""
    defect = defect or Defect(())
    generator = torch.Generator().manual_seed(seed)
    eta = OMEGA * torch.randn(num, 3, generator=generator)
    covariates = {
        "sex": (torch.rand(num, generator=generator) < 0.5).float(),
        "weight": 70 * torch.exp(0.2 * torch.randn(num, generator=generator)),
        "age": 20 + 50 * torch.rand(num, generator=generator),
        "site": torch.randint(4, (num,), generator=generator).float(),
    }
    amounts = 50.0 * 2.0 ** torch.randint(3, (num, 1), generator=generator)
    times = TIMES.expand(num, -1).double().clone()
    study = Study((TYPICAL + eta).double(), times, amounts.double(), covariates, generator)
    study = replace(study, phi=defect.population(study).double())
    study = replace(study, values=defect.curve(study))
    study = replace(study, values=defect.error(study).clamp(min=1e-3))
    study = replace(study, observed=torch.ones_like(study.values, dtype=torch.bool))
    return defect.file(study).cohort()


def shifted(place: int, shift: Callable[[Study], Tensor]) -> Callable[[Study], Tensor]:
    """Logarithms of the parameters, one of them shifted for every individual."""

    def population(study: Study) -> Tensor:
        unit = torch.eye(3, dtype=torch.float64)[place]
        return study.phi + shift(study).double().unsqueeze(-1) * unit

    return population


def scaled(factors: dict[int, float]) -> Callable[[Study], Study]:
    """Values of some individuals times a factor."""

    def file(study: Study) -> Study:
        values = study.values.clone()
        for row, factor in factors.items():
            values[row % len(values)] *= factor
        return replace(study, values=values)

    return file


def correlated(study: Study) -> Tensor:
    eta = study.phi - TYPICAL
    v = OMEGA[2] * (0.9 * eta[:, 1] / OMEGA[1] + 0.19**0.5 * eta[:, 2] / OMEGA[2])
    return TYPICAL + torch.stack([eta[:, 0], eta[:, 1], v], -1)


def two_groups(study: Study) -> Tensor:
    sign = 2 * (torch.arange(len(study.phi)) % 2) - 1
    v = TYPICAL[2] + 0.05 * (study.phi[:, 2] - TYPICAL[2]) + 0.5 * sign
    return torch.cat([study.phi[:, :2], v.unsqueeze(-1)], -1)


def two_compartments(study: Study) -> Tensor:
    ka, cl, v = study.phi.exp().unbind(-1)
    parameters = {"ka": ka, "cl": cl, "v": v / 2, "q": cl, "v2": 2 * v}
    return nlme.two_compartments(study.times, study.doses(), **parameters)


def late(study: Study) -> Tensor:
    """Absorption begins after an hour."""
    ka, cl, v = study.phi.exp().unbind(-1)
    after = (study.times - 1.0).clamp(min=0.0)
    return nlme.one_compartment(after, study.doses(), ka=ka, cl=cl, v=v).clamp(min=0.05)


def saturable(study: Study) -> Tensor:
    """Clearance falls with the dose, by a factor of 4 from 50 to 200."""
    ka, cl, v = study.phi.exp().unbind(-1)
    cl = cl * 100.0 / study.amounts[:, 0]
    return nlme.one_compartment(study.times, study.doses(), ka=ka, cl=cl, v=v)


def induced(study: Study) -> Tensor:
    """Elimination becomes three times as fast after 6 hours."""
    _, cl, v = study.phi.exp().unbind(-1)
    rate = (cl / v).unsqueeze(-1)
    return right_curve(study) * torch.exp(-2 * rate * (study.times - 6.0).clamp(min=0.0))


def additive(study: Study) -> Tensor:
    return study.values + 0.3 * SIGMA * study.normal(*study.values.shape)


def heavy_tailed(study: Study) -> Tensor:
    normal, chi2 = study.normal(*study.values.shape), 0
    for _ in range(2):
        chi2 = chi2 + study.normal(*study.values.shape).square() / 2
    return study.values * (1 + SIGMA * normal / chi2.sqrt())


def autocorrelated(study: Study) -> Tensor:
    noise = study.normal(*study.values.shape)
    for j in range(1, noise.shape[1]):
        noise[:, j] = 0.9 * noise[:, j - 1] + 0.19**0.5 * noise[:, j]
    return study.values * (1 + SIGMA * noise)


def larger_at_a_site(study: Study) -> Tensor:
    factor = torch.where(study.covariates["site"] == 1, 4.0, 1.0).double().unsqueeze(-1)
    return study.values * (1 + SIGMA * factor * study.normal(*study.values.shape))


def careful_and_careless(study: Study) -> Tensor:
    factor = torch.exp(1.0 * study.normal(len(study.values), 1))
    return study.values * (1 + SIGMA * factor * study.normal(*study.values.shape))


def twice(study: Study) -> Study:
    values = study.values.clone()
    values[2] = values[-1]
    return replace(study, values=values)


def swapped(study: Study) -> Study:
    """All samples of the individual with the lowest and that with the highest dose."""
    values, amounts = study.values.clone(), study.amounts[:, 0]
    low, high = int(amounts.argmin()), int(amounts.argmax())
    values[[low, high]] = values[[high, low]]
    return replace(study, values=values)


def dropout(study: Study) -> Study:
    observed = study.observed.clone()
    observed[study.phi[:, 1] > TYPICAL[1], 5:] = False
    return replace(study, observed=observed)


def half_the_limit(study: Study) -> Study:
    """A quarter of the values lies below the limit, and is written as half of it."""
    limit = study.values.quantile(0.25)
    values = torch.where(study.values < limit, limit / 2, study.values)
    return replace(study, values=values)


def left_out_below(study: Study) -> Study:
    """A third of the values lies below the limit, and is left out."""
    return replace(study, observed=study.values > study.values.quantile(0.35))


def outlier(study: Study) -> Study:
    values = study.values.clone()
    values[7 % len(values), 3] *= 10
    return replace(study, values=values)


def late_clock(study: Study) -> Study:
    """The times of a quarter of the individuals are written in minutes."""
    times = study.times.clone()
    times[::4] *= 60
    return replace(study, times=times)


def mixed_up_samples(study: Study) -> Study:
    """The first and the last sample of three individuals are exchanged."""
    values = study.values.clone()
    for row in (1, 8, 15):
        values[row % len(values), [0, -1]] = values[row % len(values), [-1, 0]]
    return replace(study, values=values)


def wrong_dose(study: Study) -> Study:
    """The doses of three individuals are written ten times too large."""
    amounts = study.amounts.clone()
    amounts[[3, 11, 19]] *= 10
    return replace(study, amounts=amounts)


COVARIATES = ("random effects and covariates",)
DISTRIBUTION = ("distribution of random effects",)
RESIDUALS = ("residuals of y", "errors of y")
UNITS = ("data and prior", "estimates and their prior")
PERSONS = (*DISTRIBUTION, "influence of individuals", "data and prior", *RESIDUALS)


DEFECTS = {
    "sex on clearance, x 2.7": Defect(COVARIATES, shifted(1, lambda s: s.covariates["sex"])),
    "sex on clearance, x 1.35": Defect(COVARIATES, shifted(1, lambda s: 0.3 * s.covariates["sex"])),
    "weight on volume": Defect(
        COVARIATES, shifted(2, lambda s: (s.covariates["weight"] / 70).log())
    ),
    "age on absorption": Defect(
        COVARIATES, shifted(0, lambda s: 0.03 * (s.covariates["age"] - 45))
    ),
    "middle ages clear less": Defect(
        COVARIATES, shifted(1, lambda s: 0.8 * ((s.covariates["age"] - 45) / 25).square())
    ),
    "a site with less absorbed": Defect(
        COVARIATES, shifted(2, lambda s: 0.7 * (s.covariates["site"] == 2).float())
    ),
    "clearance drifts with the order": Defect(
        COVARIATES, shifted(1, lambda s: torch.linspace(-0.4, 0.4, len(s.phi)))
    ),
    "clearance falls with the dose": Defect((*COVARIATES, *RESIDUALS), curve=saturable),
    "correlation 0.9": Defect(("correlations of random effects",), correlated),
    "two groups of volumes": Defect(DISTRIBUTION, two_groups),
    "one individual x 0.1": Defect(PERSONS, file=scaled({5: 0.1})),
    "three individuals x 0.2, x 5": Defect(PERSONS, file=scaled({3: 0.2, 9: 0.2, 20: 5.0})),
    "doses of three individuals x 10": Defect(PERSONS, file=wrong_dose),
    "samples of two individuals swapped": Defect(PERSONS, file=swapped),
    "two compartments": Defect(RESIDUALS, curve=two_compartments),
    "a lag of an hour": Defect(RESIDUALS, curve=late),
    "elimination induced after 6 h": Defect(RESIDUALS, curve=induced),
    "additive error": Defect(RESIDUALS, error=additive),
    "errors with heavy tails": Defect(RESIDUALS, error=heavy_tailed),
    "errors that go together": Defect(RESIDUALS, error=autocorrelated),
    "a site with larger errors": Defect(RESIDUALS, error=larger_at_a_site),
    "individuals with larger errors": Defect(RESIDUALS, error=careful_and_careless),
    "one value x 10": Defect((*RESIDUALS, "influence of individuals"), file=outlier),
    "first and last samples exchanged": Defect(PERSONS, file=mixed_up_samples),
    "values below the limit as half of it": Defect(
        (*RESIDUALS, "identity of individuals and values"), file=half_the_limit
    ),
    "values below the limit left out": Defect(
        ("random effects and recording", "what is missing", *RESIDUALS), file=left_out_below
    ),
    "dropout by clearance": Defect(
        ("random effects and recording", "what is missing"), file=dropout
    ),
    "an individual twice": Defect(("identity of individuals and values",), file=twice),
    "all values x 100": Defect(UNITS, file=lambda s: replace(s, values=100 * s.values)),
    "times of a quarter in minutes": Defect((*UNITS, *PERSONS), file=late_clock),
}
