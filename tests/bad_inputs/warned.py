"""What is computed, with a warning that names the individuals."""

import torch

import pyro_amortized as pa
from pyro_amortized import diagnostics

from ..exact import TRUTH, linear_program
from .kit import values


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


WARNED = {
    "an outlier far outside training": (lambda k: _reasons(k, _with_outlier(k)), "3"),
    "times far outside training": (lambda k: _reasons(k, _late(k)), "6"),
    "an individual of whom nothing is recorded": (
        lambda k: pa.marginal_likelihood(
            linear_program, k.guide, _nothing_recorded(k), TRUTH, num_draws=200
        ),
        None,
    ),
    "one individual": (
        lambda k: pa.marginal_likelihood(
            linear_program, k.guide, k.cohort[:1], TRUTH, num_draws=200
        ),
        None,
    ),
    "float32 data": (
        lambda k: pa.marginal_likelihood(
            linear_program, k.guide, k.cohort.to(dtype=torch.float32), TRUTH, num_draws=200
        ),
        None,
    ),
    "fill values of any kind": (
        lambda k: pa.Series(k.cohort["y"].times, values(40, 8), k.cohort["y"].observed),
        None,
    ),
}
