"""Inputs that are computed, with a warning that names the unusual individuals."""

import torch

import pyro_amortized as pa
from pyro_amortized import diagnostics
from tests.exact import TRUTH, linear_program

from .kit import INF, NAN, cohort


def _with_outlier(k, factor=200.0):
    """The cohort, one value of the third individual multiplied."""
    y = k.cohort["y"]
    place = int(y.observed[2].to(torch.uint8).argmax())
    moved = y.values.clone()
    moved[2, place] = moved[2, place].abs() * factor + factor
    return k.cohort.with_values({"y": moved})


def _nothing_recorded(k):
    mask = torch.ones_like(k.cohort["y"].observed)
    mask[4] = False
    return k.cohort.with_observed({"y": mask})


def _late(k):
    """Times far beyond the training range, of the sixth individual."""
    y = k.cohort["y"]
    times = y.times.clone()
    times[5] = times[5] + 500.0
    return pa.Cohort({"y": pa.Series(times, y.values, y.observed)}, ids=k.cohort.ids)


def _reasons(k, cohort):
    return diagnostics.check_data(k.guide, cohort, population=TRUTH, num_simulated=400).reasons


def _thousandfold(k):
    """One individual in another unit."""
    y = k.cohort["y"]
    factor = torch.ones(len(k.cohort), 1, dtype=torch.float64)
    factor[7] = 1000.0
    return k.cohort.with_values({"y": y.values * factor})


def _score(k, data, **more):
    return pa.marginal_likelihood(
        linear_program, data, TRUTH, guide=k.guide, **{"num_draws": 200} | more
    )


# Label: what is handed in, and who must be named by `check_data`.
WARNED = {
    "an outlier far outside training": (lambda k: _reasons(k, _with_outlier(k)), "3"),
    "times far outside training": (lambda k: _reasons(k, _late(k)), "6"),
    "another unit": (lambda k: _reasons(k, _thousandfold(k)), "8"),
}
# What is unusual and fine: finite answers.
FINE = {
    "an individual of whom nothing is recorded": lambda k: _score(k, _nothing_recorded(k)),
    "one individual": lambda k: _score(k, k.cohort[:1]),
    "one observation": lambda k: _score(k, cohort(1, 1)),
    "single precision": lambda k: _score(k, k.cohort.to(dtype=torch.float32)),
    "mixed precision": lambda k: _score(k, _mixed(k)),
    "fewest draws": lambda k: _score(k, k.cohort, num_draws=25),
    "padding of NaN and infinity": lambda k: _score(k, _padded(k)),
}


def _mixed(k):
    y = k.cohort["y"]
    return pa.Cohort({"y": pa.Series(y.times.float(), y.values, y.observed)})


def _padded(k):
    y = k.cohort["y"]
    odd = torch.where(torch.arange(8) % 2 == 0, NAN, INF).double()
    return pa.Cohort({"y": pa.Series(y.times, torch.where(y.observed, y.values, odd), y.observed)})
