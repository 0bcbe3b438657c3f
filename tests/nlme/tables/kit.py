"""A small table without a fault, and the comparison of two cohorts."""

import math

import pandas as pd
import torch


def table(**changes):
    columns = {
        "ID": [7, 7, 7, 3, 3],
        "TIME": [0.0, 2.0, 1.0, 0.0, 4.0],
        "DV": [math.nan, 5.0, 6.0, math.nan, 2.0],
        "AMT": [100.0, 0.0, 0.0, 50.0, 0.0],
        "EVID": [1, 0, 0, 1, 0],
        "WT": [70.0, 70.0, 70.0, 60.0, 60.0],
    }
    return pd.DataFrame(columns | changes)


def same(a, b):
    assert a.ids == b.ids
    assert set(a.series) == set(b.series)
    assert set(a.time_varying) == set(b.time_varying)
    for name, first in a.series.items():
        assert torch.equal(first.observed, b[name].observed), name
        # A sample before a dose at its time is moved by a rounding error, each time it is read.
        assert torch.allclose(first.times, b[name].times, rtol=1e-14, atol=0.0), name
    for one, other in ((a.series, b.series), (a.time_varying, b.time_varying)):
        for name in one:  # what was recorded, when
            for i in range(len(a)):
                records = [
                    torch.stack([s.times[i], s.values[i]])[:, s.observed[i]]
                    for s in (one[name], other[name])
                ]
                assert torch.allclose(*records, rtol=1e-14), (name, i)
    assert (a.doses is None) == (b.doses is None)
    if a.doses is not None:
        for name, value in vars(a.doses).items():
            assert torch.allclose(getattr(b.doses, name).double(), value.double(), rtol=1e-14), name
    for name, value in a.covariates.items():
        assert torch.equal(b.covariates[name], value)
