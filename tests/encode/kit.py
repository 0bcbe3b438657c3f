"""Encoders with scales from a cohort, and cohorts to encode."""

import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.encode import Form, Tokens


def fitted(cohort, series, grid=None, encoding=None):
    """An encoder with the scales of a cohort."""
    return (encoding or Tokens()).encoder(Form.of(cohort, series, grid)).fit(cohort)


def gridded(num=30):
    """Individuals that share their times; every second one was not recorded at the third time."""
    times = torch.tensor([0.0, 1.0, 2.5, 4.0]).expand(num, -1)
    values = torch.rand(num, 4, generator=torch.Generator().manual_seed(0)) + 1
    observed = torch.ones(num, 4, dtype=torch.bool)
    observed[:, 2] = torch.arange(num) % 2 == 0
    return Cohort({"y": Series(times, values, observed)})


def wider(cohort):
    """The cohort with one more time for every individual."""
    y = cohort["y"]
    return Cohort(
        {
            "y": Series(
                torch.cat([y.times, y.times[:, -1:] + 1], 1),
                torch.cat([y.values, y.values[:, -1:]], 1),
            )
        },
        covariates=cohort.covariates,
    )
