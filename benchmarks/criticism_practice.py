"""More defects of real studies, for `criticism.py`: mistakes of the clinic, of the laboratory, of
the pharmacy and of the data base, and of models of other outcomes.
"""

from dataclasses import replace

import torch
from torch import Tensor

from criticism_defects import (
    CORRELATIONS,
    COVARIATES,
    DISTRIBUTION,
    PERSONS,
    RESIDUALS,
    VARIANCES,
    Defect,
    moved,
    noise,
)
from criticism_files import DEFECTS as FIRST, IDENTITY, UNITS, VALUES
from criticism_models import (
    baseline,
    crossing_hazards,
    cured,
    falling_clearance,
    lag_of_some,
    late_by_site,
    missed_doses,
    order,
    overdispersed,
    rising,
    saturated,
    second_peak,
    siblings,
    sticky,
    zero_inflated,
)
from criticism_studies import Study

NEIGHBOURS = ("neighbours in the file",)
WRITTEN = ("doses, covariates and times as written",)
EVENTS = ("events of y", "events of y and variables")
OUTCOMES = ("yes_no", "counts")
DOSED = ("pk",)
CENTRE = (*COVARIATES, *RESIDUALS, *EVENTS)
ANY = (*WRITTEN, *COVARIATES, *VARIANCES, *PERSONS, *CORRELATIONS)


def at_site(study: Study) -> Tensor:
    return study.covariates["site"] == 1


def with_covariates(study: Study, **changed: Tensor) -> Study:
    return replace(study, covariates={**study.covariates, **changed})


def pounds_at_a_site(study: Study, size: float) -> Study:
    """Weights of a part of the individuals of one site are in pounds."""
    weight, rows = study.covariates["weight"].clone(), at_site(study).nonzero()[:, 0]
    weight[rows[: round(size * len(rows))]] *= 2.2046
    return with_covariates(study, weight=weight)


def exchanged_columns(study: Study, size: float) -> Study:
    """Weights and ages of a part of the individuals are exchanged."""
    weight, age = (study.covariates[n].clone() for n in ("weight", "age"))
    rows = torch.arange(0, len(study), round(1 / size))
    weight[rows], age[rows] = age[rows], weight[rows]
    return with_covariates(study, weight=weight, age=age)


def _pairs(x: Tensor, size: float) -> list[list[int]]:
    order = x.argsort()
    return [[int(order[k]), int(order[-1 - k])] for k in range(round(size))]


def exchanged_covariates(study: Study, size: float) -> Study:
    """All covariates of pairs of individuals, of the lightest and the heaviest."""
    changed = {n: x.clone() for n, x in study.covariates.items()}
    for pair in _pairs(study.covariates["weight"], size):
        for x in changed.values():
            x[pair] = x[pair[::-1]]
    return replace(study, covariates=changed)


def exchanged_doses(study: Study, size: float) -> Study:
    amounts = study.amounts.clone()
    for pair in _pairs(amounts[:, 0], size):
        amounts[pair] = amounts[pair[::-1]]
    return replace(study, amounts=amounts)


def dose_unit_at_a_site(study: Study, size: float) -> Study:
    amounts = study.amounts.clone()
    amounts[at_site(study)] *= size
    return replace(study, amounts=amounts)


def summer_time(study: Study, size: float) -> Study:
    """The clock of one site."""
    return replace(study, times=study.times + size * at_site(study).double()[:, None])


def shuffled(study: Study, size: float) -> Study:
    """The records of some individuals in another order."""
    values = study.values.clone()
    for row in range(2, 2 + 7 * round(size), 7):
        i = row % len(values)
        values[i] = values[i].flip(0)
    return replace(study, values=values)


def half_a_day(study: Study, size: float) -> Study:
    """The sample of 2 or 4 hours is written 12 hours later in some individuals."""
    times, values = study.times.clone(), study.values.clone()
    for row in range(1, 1 + 5 * round(size), 5):
        i = row % len(times)
        times[i, 3] += 12.0
        order = times[i].argsort()
        times[i], values[i] = times[i][order], values[i][order]
    return replace(study, times=times, values=values)


def a_batch(study: Study, size: float) -> Study:
    """Some individuals in a row were measured with another slope of the assay."""
    values, num = study.values.clone(), len(study)
    values[num // 4 : num // 2] *= size
    return replace(study, values=values)


def one_row_off(study: Study, size: float) -> Study:
    """Values of some visits belong to the next individual of the file."""
    values = study.values.clone()
    for column in range(1, 1 + 2 * round(size), 2):
        values[:, column] = values[:, column].roll(1)
    return replace(study, values=values)


def repeated_in_the_middle(study: Study, size: float) -> Study:
    """A value is that of the visit before, in a part of the individuals."""
    values = study.values.clone()
    rows = torch.rand(len(study), generator=study.generator) < size
    values[rows, 4] = values[rows, 3]
    return replace(study, values=values)


def logarithms(study: Study, size: float) -> Study:
    """Values of some individuals are logarithms."""
    values = study.values.clone()
    for row in range(3, 3 + 7 * round(size), 7):
        i = row % len(values)
        values[i] = (1 + values[i]).log()
    return replace(study, values=values)


def planned_times(study: Study, size: float) -> Study:
    """Planned times are written in place of the real ones."""
    factor = torch.exp(size * study.normal(*study.times.shape))
    real = (study.times * factor).sort(1).values
    values = noise(
        replace(study, values=study.problem.curve(replace(study, times=real), study.phi))
    )
    return replace(study, values=values.clamp(min=1e-3))


def not_measured(study: Study, size: float) -> Study:
    """Unknown weights of some individuals are written as 999."""
    weight = study.covariates["weight"].clone()
    weight[: round(size)] = 999.0
    return with_covariates(study, weight=weight)


def zeros(study: Study, size: float) -> Study:
    """Values below the limit are written as (nearly) zero."""
    limit = study.values.quantile(size)
    return replace(study, values=torch.where(study.values < limit, 1e-3, study.values))


def whole_blood(study: Study, size: float) -> Study:
    """Half of the individuals, not recorded who, were measured in another matrix."""
    values = study.values.clone()
    values[torch.rand(len(study), generator=study.generator) < 0.5] *= size
    return replace(study, values=values)


def halves_exchanged(study: Study, size: float) -> Study:
    """The last values of two individuals."""
    values = study.values.clone()
    for pair in _pairs(values[:, -1], size):
        values[pair, 4:] = values[pair[::-1], 4:]
    return replace(study, values=values)


def treated_as_placebo(study: Study, size: float) -> Study:
    """The group of some individuals is wrong."""
    group = study.covariates["group"].clone()
    rows = torch.arange(0, len(study), round(1 / size))
    group[rows] = 1 - group[rows]
    return with_covariates(study, group=group)


def cumulated(study: Study, size: float) -> Study:
    """A part of the individuals has sums of counts in place of counts."""
    values = study.values.clone()
    rows = torch.arange(0, len(study), round(1 / size))
    values[rows] = values[rows].cumsum(1)
    return replace(study, values=values)


def reversed_at_a_site(study: Study, size: float) -> Study:
    """1 is no, and 0 is yes, at one site."""
    values, rows = study.values.clone(), at_site(study).nonzero()[:, 0]
    rows = rows[: round(size * len(rows))]
    values[rows] = 1 - values[rows]
    return replace(study, values=values)


def event_unit_at_a_site(study: Study, size: float) -> Study:
    values = study.values.clone()
    values[at_site(study), 0] /= size
    return replace(study, values=values)


PRACTICE = {
    "weights of a site in pounds": Defect(
        (*WRITTEN, *COVARIATES), (0.3, 0.6, 1.0), file=pounds_at_a_site, words="weight|site"
    ),
    "weights and ages exchanged": Defect(
        (*WRITTEN, *COVARIATES), (0.1, 0.25, 1.0), file=exchanged_columns, words="weight"
    ),
    "covariates of pairs exchanged": Defect(
        (*WRITTEN, *COVARIATES, *PERSONS), (1, 2, 4), file=exchanged_covariates, only=DOSED
    ),
    "doses of pairs exchanged": Defect(
        (*WRITTEN, *COVARIATES, *PERSONS), (1, 2, 4), file=exchanged_doses, only=DOSED
    ),
    "doses of a site in another unit": Defect(
        (*WRITTEN, *COVARIATES, *UNITS, *PERSONS),
        (1.2, 1.5, 10.0),
        file=dose_unit_at_a_site,
        only=DOSED,
        words="site|dose",
    ),
    "summer time at a site": Defect(
        (*WRITTEN, *COVARIATES, *RESIDUALS),
        (0.25, 0.5, 1.0),
        file=summer_time,
        only=DOSED,
        words="site|times",
    ),
    "records of an individual reversed": Defect((*WRITTEN, *PERSONS), (1, 2, 4), file=shuffled),
    "morning and evening": Defect((*WRITTEN, *PERSONS), (1, 3, 8), file=half_a_day, only=DOSED),
    "a batch of the assay": Defect(
        (*NEIGHBOURS, *COVARIATES, *RESIDUALS, *WRITTEN),
        (1.15, 1.3, 1.8),
        file=a_batch,
        words="order|neighbour",
    ),
    "one row off": Defect((*RESIDUALS, *PERSONS), (1, 2, 3), file=one_row_off),
    "a value carried forward in the middle": Defect(
        VALUES, (0.1, 0.2, 0.5), file=repeated_in_the_middle, words="equal values"
    ),
    "logarithms of some": Defect((*WRITTEN, *PERSONS), (1, 2, 4), file=logarithms),
    "planned times": Defect(
        (*RESIDUALS, *PERSONS), (0.1, 0.2, 0.5), file=planned_times, only=DOSED
    ),
    "weights of 999": Defect((*WRITTEN, *IDENTITY, *ANY), (1, 2, 3), file=not_measured),
    "below the limit as zero": Defect(
        (*VALUES, *RESIDUALS), (0.02, 0.05, 0.15), file=zeros, only=("pk", "ode")
    ),
    "a baseline": Defect(RESIDUALS, (0.3, 1.0, 3.0), curve=baseline, only=DOSED),
    "a second peak": Defect(RESIDUALS, (0.2, 0.4, 1.0), curve=second_peak, only=DOSED),
    "saturated elimination": Defect(
        (*COVARIATES, *RESIDUALS), (0.5, 1.0, 4.0), curve=saturated, only=DOSED
    ),
    "late absorption of some": Defect(
        (*DISTRIBUTION, *RESIDUALS), (0.3, 0.6, 2.0), curve=lag_of_some, only=DOSED
    ),
    "neighbours are alike": Defect(
        (*NEIGHBOURS, *COVARIATES), (0.3, 0.6, 0.95), siblings, words="order|neighbour"
    ),
    "another matrix for half": Defect(
        (*DISTRIBUTION, *CORRELATIONS), (1.15, 1.3, 2.0), file=whole_blood, only=("pk", "ode")
    ),
    "last values of pairs exchanged": Defect(
        (*WRITTEN, *PERSONS), (1, 2, 4), file=halves_exchanged
    ),
    "wrong groups": Defect(
        (*WRITTEN, *DISTRIBUTION, *CORRELATIONS, *COVARIATES),
        (0.1, 0.2, 0.33),
        moved("main", lambda s: 14 * s.covariates["group"]),
        file=treated_as_placebo,
        only=("growth",),
    ),
    "doses not taken": Defect(
        (*WRITTEN, *PERSONS), (0.05, 0.1, 0.25), curve=missed_doses, only=("repeated",)
    ),
    "clearance changes between days": Defect(
        RESIDUALS, (0.1, 0.2, 0.6), curve=falling_clearance, only=("repeated",)
    ),
    "a centre": Defect(
        CENTRE, (1.0, 2.0, 5.0), moved("main", late_by_site), only=OUTCOMES, words="site"
    ),
    "a centre with events": Defect(
        CENTRE, (3.0, 5.0, 8.0), moved("main", late_by_site), only=("event",), words="site"
    ),
    "a drift": Defect(CENTRE, (0.5, 0.9, 1.8), moved("main", order), only=OUTCOMES, words="order"),
    "a drift of events": Defect(
        CENTRE, (1.5, 3.0, 6.0), moved("main", order), only=("event",), words="order"
    ),
    "sex matters": Defect(
        CENTRE, (0.7, 1.2, 2.5), moved("main", lambda s: s.covariates["sex"]), only=OUTCOMES
    ),
    "sex matters for events": Defect(
        CENTRE,
        (2.0, 4.0, 8.0),
        moved("main", lambda s: s.covariates["sex"]),
        only=("event",),
        words="sex",
    ),
    "a course": Defect(RESIDUALS, (0.3, 0.6, 1.5), curve=rising, only=OUTCOMES),
    "too many zeros": Defect(RESIDUALS, (0.1, 0.2, 0.4), error=zero_inflated, only=("counts",)),
    "overdispersed counts": Defect(
        RESIDUALS, (0.3, 0.5, 1.0), error=overdispersed, only=("counts",)
    ),
    "values that stay": Defect(RESIDUALS, (0.2, 0.4, 0.8), error=sticky, only=("yes_no",)),
    "sums of counts": Defect(
        (*RESIDUALS, *PERSONS), (0.05, 0.1, 0.25), file=cumulated, only=("counts",)
    ),
    "yes and no reversed at a site": Defect(
        (*WRITTEN, *CENTRE),
        (0.3, 0.6, 1.0),
        file=reversed_at_a_site,
        only=("yes_no",),
        words="site",
    ),
    "hazards that cross": Defect(
        EVENTS, (1.2, 1.5, 3.0), error=crossing_hazards, only=("event",), words="group"
    ),
    "cured individuals": Defect(EVENTS, (0.1, 0.2, 0.5), file=cured, only=("event",)),
    "events of a site in another unit": Defect(
        (*WRITTEN, *CENTRE),
        (1.5, 2.0, 7.0),
        file=event_unit_at_a_site,
        only=("event",),
        words="site",
    ),
}
DEFECTS = {**FIRST, **PRACTICE}
