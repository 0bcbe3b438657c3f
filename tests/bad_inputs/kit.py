"""The objects that the entries of the table use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pyro_amortized as pa

NAN, INF = float("nan"), float("inf")


@dataclass
class Kit:
    """A small cohort, a guide and a fit of the linear model, and an empty folder."""

    cohort: pa.Cohort
    guide: pa.AmortizedGuide
    fit: Any
    folder: Path


def rows(*values, dtype=torch.float64):
    """Rows of a tensor."""
    return torch.tensor(values, dtype=dtype)


def times(num=3, width=4):
    """Times 1, 2, ... of every individual."""
    return torch.arange(1.0, width + 1).double().expand(num, -1).clone()


def values(num=3, width=4):
    """Some values."""
    return torch.linspace(0.5, 2.0, num * width).double().reshape(num, width)


def cohort(num=3, width=4, **more):
    """A cohort of one series ``y``."""
    return pa.Cohort({"y": pa.Series(times(num, width), values(num, width))}, **more)


def changed(x, where, value):
    """A copy with one value changed."""
    x = x.clone()
    x[where] = value
    return x
