"""Counts, categories, events and levels: data and parameters that no model can have."""

import pandas
import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.model import check_density_near_prior

from .kit import INF, NAN, rows, times

SCORES = rows([0, 1, 2, 1], [2, 2, 1, 0], [0, 0, 1, 2])
THIRD = torch.full((3,), 1 / 3, dtype=torch.float64)
STEPS = rows([0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8])
EVENT_TIMES, HAPPENED = rows(1.0, 2.0, 3.0), rows(1.0, 0.0, 1.0)
RECORD = nlme.event_series(EVENT_TIMES, HAPPENED)
CONSTANT = nlme.exponential_hazard(torch.tensor(0.5))
WEIBULL = nlme.weibull_hazard(2.0, 1.5)
AT_ONCE = nlme.event_series(rows(0.0, 2.0, 3.0), HAPPENED)
TWICE = nlme.event_series(rows([1.0, 1.0], [1.0, 2.0], [1.0, 2.0]), rows([1, 1], [1, 0], [1, 0]))


def _checked(observation, values=None, series=None):
    """A fit's look at the density of a program with one observation site."""
    found = pa.Series(times(), values) if series is None else series

    def model(c):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(c)):
            b = pyro.sample("b", dist.Normal(0.0 * spread, spread))
            y = c["y"]
            pyro.sample("y", observation(b, y), obs=y.values)

    cohort = pa.Cohort({"y": found})
    check_density_near_prior(pa.read_structure(model, cohort), cohort)


def _each(distribution):
    """A distribution of single values of the linear predictor, masked."""
    return lambda b, y: distribution(b[..., None] + 0 * y.times).mask(y.observed).to_event(1)


def _ordered(cuts):
    cuts = torch.tensor(cuts, dtype=torch.float64)
    return _each(lambda x: dist.OrderedLogistic(x, cuts))


def _chain(initial=THIRD, steps=STEPS):
    return lambda b, y: nlme.MarkovCategories(initial + 0 * b[..., None], steps, y.observed)


def _events(hazard=CONSTANT, **arguments):
    return lambda b, y: nlme.EventTimes(hazard.scaled(b.exp()), y, **arguments)


def _table(**arguments):
    """A table with a sex that changes and a weight that one individual lacks."""
    frame = pandas.DataFrame(
        {
            "ID": [1, 1, 2],
            "TIME": [0.0, 1.0, 0.0],
            "DV": [5.0, 4.0, 6.0],
            "SEX": ["M", "F", "F"],
            "ARM": ["a", None, None],
            "WT": [60.0, None, None],
        }
    )
    return nlme.read_table(frame, series="y", **arguments)


OUTCOMES = {
    f"outcomes: {label}": attempt
    for label, attempt in {
        "categories from 1": (lambda k: _checked(_ordered([-1, 1]), SCORES + 1), "as 0"),
        "a category below 0": (lambda k: _checked(_ordered([-1, 1]), SCORES - 1), "0 to 2"),
        "half a category": (lambda k: _checked(_ordered([-1, 1]), SCORES / 2), "0 to 2"),
        "cut points that decrease": (lambda k: _checked(_ordered([1, -1]), SCORES), "decrease"),
        "binary values from 1": (
            lambda k: _checked(_each(lambda x: dist.Bernoulli(logits=x)), SCORES),
            "0 to 1",
        ),
        "more successes than trials": (
            lambda k: _checked(_each(lambda x: dist.Binomial(1, logits=x)), SCORES),
            "trials",
        ),
        "half a count": (
            lambda k: _checked(_each(lambda x: dist.Poisson(x.exp())), SCORES / 2),
            "wh",
        ),
        "a chain with a category too many": (lambda k: _checked(_chain(), SCORES + 1), "0 to 2"),
        "a chain with half a category": (lambda k: _checked(_chain(), SCORES / 2), "0 to 2"),
        "a chain whose rows stand in columns": (
            lambda k: _checked(_chain(steps=rows([0.8, 0.5, 0], [0.2, 0, 0], [0, 0.5, 1])), SCORES),
            "do not add up to one",
        ),
        "a chain that begins twice": (
            lambda k: _checked(_chain(initial=2 * THIRD), SCORES),
            "initial probabilities",
        ),
        "a chain with a negative probability": (
            lambda k: _checked(_chain(steps=rows([1.2, -0.2, 0], [0, 1, 0], [0, 0, 1])), SCORES),
            "negative",
        ),
        "a chain of lists": (
            lambda k: nlme.MarkovCategories([0.5, 0.5], torch.eye(2), SCORES > 0),
            "`initial`",
        ),
        "an event at time 0 of a Weibull hazard": (
            lambda k: _checked(_events(WEIBULL), series=AT_ONCE),
            "at which the hazard is zero or infinite",
        ),
        "two events at once, with gap times": (
            lambda k: _checked(_events(WEIBULL, clock="reset"), series=TWICE),
            "since the begin or the event before",
        ),
        "breaks of a hazard in a list": (
            lambda k: nlme.integrated_hazard(lambda t: t, breaks=[1.0]),
            "breaks",
        ),
        "one cause": (lambda k: nlme.cause_of_event(RECORD.values, CONSTANT), "two or more"),
        "an unknown clock": (
            lambda k: nlme.EventTimes(CONSTANT, RECORD, clock="gap"),
            "`clock`",
        ),
        "a chain with a mask of numbers": (
            lambda k: nlme.MarkovCategories(THIRD, STEPS, SCORES),
            "`observed`",
        ),
        "an event before the entry": (
            lambda k: _checked(_events(begin=rows(0.5, 2.5, 0.0)), series=RECORD),
            "of individual 2",
        ),
        "an entry that is not known": (
            lambda k: _checked(_events(begin=rows(0.5, 0.5, NAN)), series=RECORD),
            "of individual 3",
        ),
        "entries of other individuals": (
            lambda k: _checked(_events(begin=rows(0.5, 0.5)), series=RECORD),
            "`begin`",
        ),
        "an event between visits": (
            lambda k: _checked(_events(visits=rows([1, 4], [1, 4], [2, 4])), series=RECORD),
            "none of the `visits`",
        ),
        "visits of other individuals": (
            lambda k: _checked(_events(visits=rows([1.0, 4.0])), series=RECORD),
            "`visits`",
        ),
        "a hazard of other individuals": (
            lambda k: _checked(
                lambda b, y: nlme.EventTimes(nlme.weibull_hazard(torch.ones(5), 1.0), y),
                series=RECORD,
            ),
            "one parameter for each individual",
        ),
        "a hazard that is negative": (
            lambda k: _checked(
                lambda b, y: nlme.EventTimes(nlme.exponential_hazard(-b.exp()), y), series=RECORD
            ),
            "NaN",
        ),
        "a change of hazard before the begin": (
            lambda k: nlme.piecewise_hazard(rows(-1.0, 2.0), torch.ones(3)),
            "positive increasing",
        ),
        "no individual with an event": (
            lambda k: nlme.event_series(torch.zeros(0), torch.zeros(0)),
            "at least one",
        ),
        "ends of other individuals": (
            lambda k: nlme.event_series(EVENT_TIMES, HAPPENED, end=rows(4.0, 4.0)),
            "`end`",
        ),
        "an end that is not known": (
            lambda k: nlme.event_series(EVENT_TIMES, HAPPENED, end=rows(4.0, NAN, 4.0)),
            "nan",
        ),
        "times that are texts": (
            lambda k: nlme.event_series(["one", "two"], [1, 0]),
            "`times`",
        ),
        "a category by name that is missing": (lambda k: _table(covariates=["ARM"]), "unknown"),
        "a category by name that changes": (lambda k: _table(covariates=["SEX"]), "'M'"),
        "a category by name over time": (lambda k: _table(time_varying=["SEX"]), "texts"),
        "a category by name for some": (lambda k: _table(incomplete=["ARM"]), "texts"),
        "a covariate that is complete and not": (
            lambda k: _table(covariates=["WT"], incomplete=["WT"]),
            "each column once",
        ),
        "a covariate of other individuals": (
            lambda k: nlme.completed(_table(incomplete=["WT"])["WT"], torch.ones(3)),
            "`imputed`",
        ),
        "a covariate that is no series": (
            lambda k: nlme.completed(torch.ones(2, 1), torch.ones(2)),
            "`record`",
        ),
        "occasions in the place of individuals": (
            lambda k: nlme.by_occasion(torch.ones(2, 3), torch.zeros(3, 4).long()),
            "values.mT",
        ),
        "an interval from nowhere": (
            lambda k: nlme.interval_series([INF, 1.0], [INF, 2.0]),
            "inf",
        ),
    }.items()
}
