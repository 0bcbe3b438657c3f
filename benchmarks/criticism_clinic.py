"""A fourth list of defects, over the models of `criticism_clinic_models.py`, for
`criticism_judge.py`: what goes wrong in the pharmacy, at the bedside, in the laboratory and in the
data base. It was written down before the first run.
"""

from dataclasses import replace

import torch
from criticism_judge_defects import (
    EFFECTS,
    ERRORS,
    WRITTEN,
    Defect,
    at_site,
    every,
    values_changed,
    with_series,
)

PLACES = f"{WRITTEN}|{EFFECTS}|{ERRORS}"
SINGLE = f"{WRITTEN}|{ERRORS}|distribution|influence|units"


def with_covariate(cohort, name, values):
    return replace(cohort, covariates={**cohort.covariates, name: values})


def doses_times(factor, rows=at_site):
    """What is written is a factor times what was given."""

    def file(cohort):
        amounts = cohort.doses.amounts.clone()
        amounts[rows(cohort)] *= factor
        return replace(cohort, doses=replace(cohort.doses, amounts=amounts))

    return file


def since_last_dose(cohort):
    """Times after the sixth dose are written as those since this dose."""
    times, values = cohort["y"].times.clone(), cohort["y"].values.clone()
    observed = cohort["y"].observed.clone()
    rows = torch.arange(len(cohort)) % 6 == 1
    late = (times > 60.0) & rows[:, None]
    times = torch.where(late, times - 60.0, times)
    order = times.argsort(1)
    return with_series(
        cohort, "y", values.gather(1, order), times.gather(1, order), observed.gather(1, order)
    )


def doubled_rows(cohort):
    """Every dose of some individuals stands in the file twice."""
    return doses_times(2.0, lambda c: torch.arange(len(c)) % 8 == 3)(cohort)


def switched(cohort):
    """The second half of the individuals got half of the last three doses, which is not written."""
    amounts = cohort.doses.amounts.clone()
    amounts[len(cohort) // 2 :, 3:] *= 2
    return replace(cohort, doses=replace(cohort.doses, amounts=amounts))


def low_as_zero(share):
    def file(cohort):
        y = cohort["y"]
        limit = y.values[y.observed].quantile(share)
        return with_series(cohort, "y", torch.where(y.values < limit, 0.0, y.values))

    return file


def mean_weights(cohort):
    x = cohort.covariates["weight"].clone()
    rows = torch.arange(len(x)) % 4 == 1
    x[rows] = x[~rows].mean().round()
    return with_covariate(cohort, "weight", x)


def weight_in_pounds(cohort):
    x = cohort.covariates["weight"].clone()
    x[at_site(cohort)] *= 2.2046
    return with_covariate(cohort, "weight", x)


def sex_coded_otherwise(cohort):
    """1 and 2 at one site in place of 0 and 1."""
    x = cohort.covariates["sex"].clone()
    x[cohort.covariates["site"] == 2] += 1
    return with_covariate(cohort, "sex", x)


def last_part_exchanged(name, start, step):
    """From a visit on, neighbours in the file carry each other's label."""

    def file(cohort):
        values = cohort[name].values.clone()
        first = torch.arange(0, len(cohort) - 1, step)
        both = values[first, start:].clone()
        values[first, start:] = values[first + 1, start:]
        values[first + 1, start:] = both
        return with_series(cohort, name, values)

    return file


def merged(cohort):
    """Odd visits of some individuals belong to another one."""
    values = cohort["y"].values.clone()
    rows = torch.arange(0, len(cohort) - 8, 8)
    values[rows, 1::2] = values[rows + 5, 1::2]
    return with_series(cohort, "y", values)


def one_visit_late(cohort):
    """Values of a site are written at the visit after."""
    values = cohort["y"].values.clone()
    rows = at_site(cohort)
    values[rows, 1:] = values[rows, :-1].clone()
    return with_series(cohort, "y", values)


def filled_forward(cohort):
    """After dropout the last value is repeated."""
    values = cohort["y"].values.clone()
    rows = torch.arange(len(cohort)) % 3 == 0
    values[rows, 4:] = values[rows, 3:4]
    return with_series(cohort, "y", values)


def no_by_default(cohort):
    """Visits that were missed are written as no."""
    g = torch.Generator().manual_seed(1)
    values = cohort["y"].values.clone()
    missed = torch.rand(values.shape, generator=g) < 0.5
    values[missed & at_site(cohort)[:, None]] = 0.0
    return with_series(cohort, "y", values)


def events_at_visits(cohort):
    """Times of events are written as those of the next visit, every two months."""
    values = cohort["event"].values.clone()
    happened = values[..., 1] > 0
    rounded = ((values[..., 0] / 2).ceil() * 2).clamp(max=10.0)
    values[..., 0] = torch.where(happened, rounded, values[..., 0])
    return with_series(cohort, "event", values)


def ends_as_events(cohort):
    """The end of the observation of a site is written as an event."""
    values = cohort["event"].values.clone()
    values[at_site(cohort), :, 1] = 1.0
    return with_series(cohort, "event", values)


def immortal(cohort):
    """Time before the treatment, six months, counts as time under it."""
    values = cohort["event"].values.clone()
    rows = cohort.covariates["arm"] == 1
    values[rows, :, 0] += 6.0
    values[..., 1] = torch.where(values[..., 0] > 10.0, 0.0, values[..., 1])
    values[..., 0] = values[..., 0].clamp(max=10.0)
    return with_series(cohort, "event", values)


def sequences_exchanged(cohort):
    arm = cohort.covariates["arm"].clone()
    rows = torch.arange(len(cohort)) % 4 == 0
    arm[rows] = 1 - arm[rows]
    return with_covariate(cohort, "arm", arm)


def hours_of_a_plate(cohort):
    """One plate of twelve cells was read at half of the intervals."""
    times = cohort["y"].times.clone()
    times[12:24] /= 2
    return with_series(cohort, "y", times=times)


CLINIC = {
    "oral: the salt at a site": Defect("oral", file=doses_times(1.6), checks=PLACES, words="site"),
    "oral: time since the last dose": Defect("oral", file=since_last_dose, checks=SINGLE),
    "oral: rows of doses twice": Defect("oral", file=doubled_rows, checks=SINGLE),
    "oral: the protocol is switched": Defect("oral", file=switched, checks=PLACES, words="order"),
    "oral: a saturated detector": Defect("oral", "saturated detector"),
    "oral: autoinduction": Defect("oral", "autoinduction"),
    "oral: another exponent of the weight": Defect(
        "oral", "steep weight", checks=EFFECTS, words="weight"
    ),
    "oral: below the limit as zero": Defect(
        "oral", file=low_as_zero(0.2), checks="recorded values|errors|residuals"
    ),
    "oral: mean weights": Defect("oral", file=mean_weights, checks="identity", words="weight"),
    "oral: pounds at a site": Defect(
        "oral", file=weight_in_pounds, checks=f"{PLACES}|identity", words="site|weight"
    ),
    "bolus: infused at a site": Defect("bolus", "infused", checks=PLACES, words="site"),
    "bolus: into a muscle at a site": Defect("bolus", "into a muscle", checks=PLACES, words="site"),
    "bolus: a bad run of the assay": Defect("bolus", "a bad run"),
    "bolus: sex coded otherwise at a site": Defect(
        "bolus", file=sex_coded_otherwise, checks=f"{WRITTEN}|{EFFECTS}|identity|interactions"
    ),
    "bolus: samples of pairs exchanged": Defect(
        "bolus", file=last_part_exchanged("y", 3, 6), checks=SINGLE
    ),
    "animals: a lost mark": Defect("animals", file=last_part_exchanged("y", 4, 6), checks=SINGLE),
    "animals: merged": Defect("animals", file=merged, checks=SINGLE),
    "animals: another balance": Defect("animals", "another balance"),
    "animals: litters": Defect("animals", "litters", checks="neighbours|random effects"),
    "animals: weeks at a site": Defect(
        "animals",
        file=lambda c: with_series(
            c, "y", times=torch.where(at_site(c)[:, None], c["y"].times / 2, c["y"].times)
        ),
        checks=PLACES,
        words="site",
    ),
    "viral: natural logarithms at a site": Defect(
        "viral", file=values_changed("y", lambda x: 2.3026 * x), checks=PLACES, words="site"
    ),
    "viral: rebound of some": Defect("viral", "rebound", checks=f"{ERRORS}|distribution|corr"),
    "viral: a worse assay at a site": Defect(
        "viral", "a worse assay at a site", checks=f"{PLACES}|recorded"
    ),
    "viral: days since the screening at a site": Defect(
        "viral",
        file=lambda c: with_series(
            c, "y", times=torch.where(at_site(c)[:, None], c["y"].times + 3, c["y"].times)
        ),
        checks=PLACES,
        words="site",
    ),
    "attacks: weeks in place of months at a site": Defect(
        "attacks",
        file=values_changed("y", lambda x: (x / 4).round()),
        checks=f"{PLACES}|events",
        words="site",
    ),
    "attacks: one visit late at a site": Defect("attacks", file=one_visit_late, checks=PLACES),
    "attacks: none after surgery": Defect(
        "attacks",
        "none after surgery",
        checks=f"{ERRORS}|{WRITTEN}|distribution|corr",
        words="zero|value 0|distribut|correl|deviate",
    ),
    "attacks: filled forward": Defect("attacks", file=filled_forward, checks=f"{ERRORS}|recorded"),
    "answers: no by default at a site": Defect(
        "answers", file=no_by_default, checks=PLACES, words="site"
    ),
    "answers: a hump": Defect("answers", "a hump"),
    "answers: filled forward": Defect("answers", file=filled_forward, checks=f"{ERRORS}|recorded"),
    "survival: written at visits": Defect(
        "survival", file=events_at_visits, checks="events|recorded times"
    ),
    "survival: ends as events at a site": Defect(
        "survival", file=ends_as_events, checks="events|recorded times", words="site|end"
    ),
    "survival: immortal time": Defect("survival", file=immortal, checks="events"),
    "survival: a late effect": Defect("survival", "late effect", checks="events", words="arm"),
    "score: a strict rater": Defect("score", "a strict rater", checks=PLACES, words="site"),
    "score: relapse": Defect("score", "relapse"),
    "score: a ceiling": Defect(
        "score",
        file=values_changed("y", lambda x: x.clamp(max=0.7), every(1)),
        checks=f"recorded|{ERRORS}",
    ),
    "periods: a period effect": Defect("periods", "a period effect", checks=f"{PLACES}"),
    "periods: sequences exchanged": Defect(
        "periods", file=sequences_exchanged, checks=SINGLE, words="arm|trend|time|distribution"
    ),
    "periods: hysteresis": Defect("periods", "hysteresis"),
    "periods: errors of both series go together": Defect("periods", "correlated errors"),
    "periods: another error of the effect": Defect("periods", "proportional effect error"),
    "cells: a plate was transfected later": Defect(
        "cells", "transfected later", checks=f"{PLACES}|neighbours", words="order"
    ),
    "cells: bleached": Defect("cells", "bleached", checks=f"{ERRORS}|prior"),
    "cells: the background of a plate": Defect(
        "cells", "background of a plate", checks=f"{PLACES}|neighbours", words="order"
    ),
    "cells: the lamp flickers": Defect("cells", "lamp"),
    "cells: a plate read at other times": Defect(
        "cells", file=hours_of_a_plate, checks=f"{PLACES}|neighbours", words="order|times"
    ),
}
