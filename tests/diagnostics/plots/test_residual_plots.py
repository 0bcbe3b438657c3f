"""Figures of residuals: scales of their axes, and lines that are broken."""

import numpy as np
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.measurements.residual_analysis import Residuals
from pyro_amortized.diagnostics.plots import goodness_of_fit
from pyro_amortized.diagnostics.plots.residual_plots import _joined
from pyro_amortized.diagnostics.result_selection import spans_orders


def made_up(times):
    """Residuals of values that fall by half in ten hours after doses at 0 and 168."""
    observed = 10 * 0.5 ** ((times % 168) / 10)
    noise = torch.linspace(-1.5, 1.5, len(times)).double()
    fields = dict.fromkeys(Residuals.__dataclass_fields__)
    fields |= {"series": "y", "observed": observed, "population": observed * 1.1}
    fields |= {"individual": observed, "iwres": noise, "cwres": noise, "npde": noise}
    fields |= {"times": times, "times_after_dose": times % 168, "kind": "continuous"}
    return Residuals(**(fields | {"censored": torch.zeros(len(times), dtype=torch.bool)}))


def two_occasions():
    occasion = torch.linspace(0.5, 36, 24).double()
    return torch.cat([occasion, 168 + occasion])


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_observed_and_predicted_values_have_the_same_scale(scale):
    axes = goodness_of_fit(made_up(two_occasions()), log=scale == "log").axes
    for ax in axes[:2]:
        assert (ax.get_xscale(), ax.get_yscale()) == (scale, scale)
        identity = next(x for x in ax.lines if x.get_color() == "#8a8f98")
        assert list(identity.get_xdata()) == list(identity.get_ydata())
    assert [ax.get_xscale() for ax in axes[2:]] == [scale, scale, "linear", "linear"]
    assert {ax.get_yscale() for ax in axes[2:]} == {"linear"}


def test_a_trend_is_broken_between_occasions():
    ax = goodness_of_fit(made_up(two_occasions())).axes[4]
    trends = [x.get_xdata() for x in ax.lines if x.get_color() == "#c8553d"]
    assert [len(x) for x in trends] == [4, 4]
    assert (trends[0].max(), trends[1].min()) < (36, 180)


@pytest.mark.parametrize(
    ("times", "parts"),
    [
        ([0.5, 1, 2, 4, 8, 24, 48, 96, 168], 1),  # planned times become rarer
        ([0.5, 1, 2, 4, 8, 24, 168.5, 169, 172, 192, 336.5, 340, 360], 3),
        (list(range(10)), 1),
        ([0, 0, 0, 1, 1, 1], 2),
    ],
)
def test_gaps_between_occasions(times, parts):
    x = np.array(times, dtype=float)
    found = _joined(x)
    assert len(found) == parts
    assert np.array_equal(np.concatenate([x[part] for part in found]), x)


@pytest.mark.parametrize(
    ("values", "is_wide"),
    [
        ([0.1, 1.0, 10.0, 20.0], True),
        ([1.0, 2.0, 5.0, 12.0], False),
        ([0.0, 1.0, 50.0, 9.0], False),
    ],
)
def test_which_series_have_logarithmic_axes(values, is_wide):
    values = torch.tensor(values).repeat(3, 1)
    assert spans_orders(pa.Series(torch.zeros_like(values).cumsum(1), values)) == is_wide
