"""Mistakes of the laboratory and of the file, for `criticism.py`: what is written down."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from criticism_defects import (
    COVARIATES,
    CURVES,
    DISTRIBUTION,
    ERRORS,
    PERSONS,
    POPULATION,
    RESIDUALS,
    Defect,
    effects,
    noise,
)
from criticism_studies import Problem, Study, log_weight, study_of

import pyro_amortized as pa

UNITS = ("units and scale of the data", "estimates and their prior")
IDENTITY = ("identity of individuals and values",)
VALUES = ("recorded values of y",)
RECORDING = ("random effects and recording", "what is missing")
THREE = (3, 11, 19)


def planted(problem: Problem, defect: Defect | None, size: float, num: int, seed: int) -> pa.Cohort:
    """A cohort with a defect; None is none."""
    study = study_of(problem, num, seed)
    population = defect and defect.population
    phi = population(study, size) if population else study.phi.clone()
    index, slope = problem.weight
    phi[:, index] += slope * log_weight(study.covariates)
    study = replace(study, phi=phi)
    curve = defect and defect.curve
    values = curve(study, size) if curve else problem.curve(study, phi)
    study = replace(study, values=values)
    error = defect and defect.error
    values = error(study, size) if error else _measured(study)
    smallest = 1e-3 if len(problem.omega) == 3 else -torch.inf
    study = replace(study, values=values.clamp(min=smallest))
    study = replace(study, observed=torch.ones_like(study.values, dtype=torch.bool))
    return (defect.file(study, size) if defect and defect.file else study).cohort()


def _measured(study: Study) -> Tensor:
    measure = study.problem.measure
    return measure(study, study.values) if measure else noise(study)


def scaled(rows: Callable[[Study], object], power: int = 1) -> Callable[[Study, float], Study]:
    """Values of some individuals times the size, or its power."""

    def file(study: Study, size: float) -> Study:
        values = study.values.clone()
        values[rows(study)] *= size**power
        return replace(study, values=values)

    return file


def both_ways(study: Study, size: float) -> Study:
    values = study.values.clone()
    values[[3, 9]] /= size
    values[20 % len(values)] *= size
    return replace(study, values=values)


def drifting_assay(study: Study, size: float) -> Study:
    """The assay reads more and more, from the first to the last individual."""
    spread = study.problem.deviation(study.values)
    drift = torch.linspace(-size, size, len(study)).double().unsqueeze(-1)
    return replace(study, values=(study.values + drift * spread).clamp(min=1e-3))


def a_wrong_batch(study: Study, size: float) -> Study:
    """All samples of one time were measured in another unit in a part of the individuals."""
    values = study.values.clone()
    values[::4, 4] *= size
    return replace(study, values=values)


def wrong_dose(study: Study, size: float) -> Study:
    amounts = study.amounts.clone()
    amounts[list(THREE)] *= size
    return replace(study, amounts=amounts)


def swapped(study: Study, size: float) -> Study:
    """Samples of pairs of individuals, those who differ most."""
    values = study.values.clone()
    order = values.mean(1).argsort()
    for k in range(round(size)):
        pair = [int(order[k]), int(order[-1 - k])]
        if study.problem.dosed:
            ratio = study.amounts[pair, 0]
            if float(ratio[0]) == float(ratio[1]):
                continue
        values[pair] = values[pair[::-1]]
    return replace(study, values=values)


def mixed_up_samples(study: Study, size: float) -> Study:
    """The lowest and the highest sample of some individuals are exchanged."""
    values = study.values.clone()
    for row in range(1, round(size) * 7 + 1, 7):
        i = row % len(values)
        pair = [int(values[i].argmin()), int(values[i].argmax())]
        values[i, pair] = values[i, pair[::-1]]
    return replace(study, values=values)


def wrong_clock(study: Study, size: float) -> Study:
    """The times of a quarter of the individuals are written late, by a part of the third time."""
    times = study.times.clone()
    times[::4] += size * float(study.problem.times[2])
    return replace(study, times=times)


def minutes(study: Study, size: float) -> Study:
    times = study.times.clone()
    times[:: round(4 / size)] *= 60
    return replace(study, times=times)


def wild_values(study: Study, size: float) -> Study:
    values = study.values.clone()
    unit = study.problem.deviation(values)
    values[7 % len(values), 3] += size * unit[7 % len(values), 3]
    values[30 % len(values), 5] += size * unit[30 % len(values), 5]
    return replace(study, values=values)


def rounded(study: Study, size: float) -> Study:
    """To a unit of the size times the median."""
    unit = size * float((study.values - study.values.min()).median())
    low = study.values.min() if len(study.problem.omega) == 2 else 0.0
    return replace(study, values=low + ((study.values - low) / unit).round() * unit)


def half_the_limit(study: Study, size: float) -> Study:
    limit = study.values.quantile(size)
    below = limit / 2 if len(study.problem.omega) == 3 else limit - 5
    return replace(study, values=torch.where(study.values < limit, below, study.values))


def at_the_upper_limit(study: Study, size: float) -> Study:
    return replace(study, values=study.values.clamp(max=float(study.values.quantile(1 - size))))


def left_out_below(study: Study, size: float) -> Study:
    return replace(study, observed=study.values > study.values.quantile(size))


def dropout(study: Study, size: float) -> Study:
    """Individuals with a large main parameter leave; the size is the probability."""
    observed = study.observed.clone()
    large = effects(study)[:, study.problem.main] > 0
    leaves = torch.rand(len(study), generator=study.generator) < size
    observed[large & leaves, 5:] = False
    return replace(study, observed=observed)


def carried_forward(study: Study, size: float) -> Study:
    """Missing values at the end are replaced by the last one that was measured."""
    values = study.values.clone()
    leaves = torch.rand(len(study), generator=study.generator) < size
    values[leaves, 4:] = values[leaves, 3:4]
    return replace(study, values=values)


def twice(study: Study, size: float) -> Study:
    """An individual occurs again, with the same values or some of them."""
    values, num = study.values.clone(), round(size)
    values[2, :num] = values[-1, :num]
    return replace(study, values=values)


def wrong_labels(study: Study, size: float) -> Study:
    """Weights of a part of the individuals are in pounds."""
    weight = study.covariates["weight"].clone()
    weight[:: round(1 / size)] *= 2.2
    return replace(study, covariates={**study.covariates, "weight": weight})


FILES = {
    "a site reads too much": Defect(
        (*COVARIATES, *RESIDUALS),
        (1.1, 1.2, 1.6),
        file=scaled(lambda s: s.covariates["site"] == 1),
        words="site",
    ),
    "a drifting assay": Defect(
        (*COVARIATES, *RESIDUALS), (0.7, 1.5, 4.0), file=drifting_assay, words="order"
    ),
    "a batch in another unit": Defect((*RESIDUALS, *PERSONS), (1.1, 1.3, 3.0), file=a_wrong_batch),
    "one individual in another unit": Defect(
        PERSONS, (0.6, 0.4, 0.1), file=scaled(lambda s: 5 % len(s))
    ),
    "three individuals too low or high": Defect(PERSONS, (1.5, 2.5, 5.0), file=both_ways),
    "doses of three times a factor": Defect(
        PERSONS, (1.5, 3.0, 10.0), file=wrong_dose, only=("pk",)
    ),
    "doses of three not taken": Defect(
        PERSONS, (0.7, 0.3, 0.02), file=scaled(lambda s: list(THREE)), only=("pk",)
    ),
    "individuals exchanged": Defect(PERSONS, (1, 2, 4), file=swapped, only=("pk",)),
    "samples exchanged": Defect(PERSONS, (1, 2, 4), file=mixed_up_samples),
    "a wrong clock": Defect(
        (*RESIDUALS, *PERSONS), (0.1, 0.3, 1.0), file=wrong_clock, only=("pk", "ode")
    ),
    "times in minutes": Defect((*UNITS, *PERSONS), (0.1, 0.5, 1.0), file=minutes),
    "two wild values": Defect(
        (*RESIDUALS, "influence of individuals"), (4.0, 6.0, 15.0), file=wild_values
    ),
    "rounded values": Defect(VALUES, (0.1, 0.3, 0.8), file=rounded),
    "below the limit as half of it": Defect(VALUES, (0.05, 0.1, 0.25), file=half_the_limit),
    "above the limit as the limit": Defect(VALUES, (0.05, 0.1, 0.3), file=at_the_upper_limit),
    "below the limit left out": Defect(
        (*RECORDING, *RESIDUALS), (0.1, 0.2, 0.35), file=left_out_below
    ),
    "dropout by a parameter": Defect(RECORDING, (0.3, 0.6, 1.0), file=dropout),
    "carried forward": Defect(VALUES, (0.1, 0.2, 0.5), file=carried_forward, words="equal values"),
    "an individual twice": Defect(IDENTITY, (4, 5, 8), file=twice),
    "all values in another unit": Defect(
        UNITS, (3.0, 10.0, 1000.0), file=scaled(lambda s: slice(None))
    ),
    "weights in pounds": Defect((*COVARIATES, *DISTRIBUTION), (0.1, 0.25, 0.5), file=wrong_labels),
}
DEFECTS = {**POPULATION, **CURVES, **ERRORS, **FILES}
