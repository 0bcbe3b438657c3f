"""Strata, corrections and percentiles of visual predictive checks."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots
from pyro_amortized.errors import CohortError, SettingError


def test_strata_and_prediction_correction(weighted):
    two = plots.visual_predictive_check(
        weighted, stratify="dose", prediction_corrected=True, num_simulations=60
    )
    assert [ax.get_title() for ax in two.axes] == ["dose = 0", "dose = 1"]
    halves = plots.visual_predictive_check(weighted, stratify="age", num_simulations=60)
    assert halves.axes[0].get_title() == "age up to 39.4872"
    with pytest.raises(CohortError, match="no covariate"):
        plots.visual_predictive_check(weighted, stratify="height")


def test_percentiles_of_the_data_lie_in_those_of_the_right_model(weighted):
    figure = plots.visual_predictive_check(weighted, num_bins=4, num_simulations=300, seed=1)
    ax = figure.axes[0]
    lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    assert len(lines) == 3
    low, high = ax.collections[1].get_paths()[0].vertices[:, 1].min(), None
    high = ax.collections[1].get_paths()[0].vertices[:, 1].max()
    median = lines[1].get_ydata()
    assert low - 0.3 < min(median)
    assert max(median) < high + 0.3


@pytest.fixture
def censored():
    """Individuals with falling values, half of the last ones below the limit 1."""

    def model(c):
        mean = pyro.sample("mean", dist.Normal(3.0, 1.0))
        y = c["y"]
        with pyro.plate("individual", len(c)):
            phi = pyro.sample("phi", dist.Normal(mean, 0.4))
            value = dist.Normal(phi[..., None] * torch.exp(-0.25 * y.times), 0.2)
            limit = c.time_varying["y_low"].at(y.times)
            low = nlme.Censored(value, low=limit).mask(y.observed).to_event(1)
            pyro.sample("y", low, obs=y.values)

    generator = torch.Generator().manual_seed(2)
    times = torch.arange(6.0).expand(20, -1).double()
    phi = 3 + 0.4 * torch.randn(20, 1, generator=generator).double()
    noise = 0.2 * torch.randn(20, 6, generator=generator).double()
    values = (phi * torch.exp(-0.25 * times) + noise).clamp(min=1.0)
    limits = {"y_low": pa.Series(times, torch.ones(20, 6).double())}
    cohort = pa.Cohort({"y": pa.Series(times, values)}, time_varying=limits)
    return pa.sample_individuals(model, cohort, {"mean": torch.tensor(3.0)}, num_draws=50)


def test_the_share_at_the_limit_is_that_of_uncorrected_values(censored):
    """The same with and without prediction correction."""
    plain, corrected = (
        plots.visual_predictive_check(censored, num_simulations=60, prediction_corrected=x, seed=1)
        for x in (False, True)
    )
    shares = [figure.axes[1] for figure in (plain, corrected)]
    for one, other in zip(shares[0].lines, shares[1].lines, strict=True):
        assert np.allclose(one.get_ydata(), other.get_ydata())
    bands = [ax.collections[0].get_paths()[0].vertices for ax in shares]
    assert np.allclose(*bands)
    assert bands[0][:, 1].max() > 0
    legend = [text.get_text() for text in plain.legends[0].get_texts()]
    assert {"median of the data", "share at the limit of the data", "data at a limit"} <= set(
        legend
    )
    assert plain.axes[0].get_shared_x_axes().joined(*plain.axes)


def test_lines_are_broken_across_gaps_and_time_after_dose(censored):
    """A second dose, after a long time without data."""
    cohort = censored.cohort
    later = torch.where(cohort["y"].times > 2, cohort["y"].times + 90, cohort["y"].times)
    doses = pa.Doses(torch.tensor([[0.0, 93.0]]).double().expand(20, -1), torch.ones(20, 2))
    series = {"y": pa.Series(later, cohort["y"].values)}
    limits = {"y_low": pa.Series(later, cohort.time_varying["y_low"].values)}
    moved = replace(censored, cohort=pa.Cohort(series, doses, time_varying=limits))
    ax = plots.visual_predictive_check(moved, num_simulations=30).axes[0]
    medians = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert [len(line.get_xdata()) for line in medians] == [3, 3]
    after = plots.visual_predictive_check(moved, num_simulations=30, x="time after dose").axes[0]
    medians = [line for line in after.lines if line.get_linestyle() == "-"]
    assert [line.get_xdata().tolist() for line in medians] == [[0.0, 1.0, 2.0]]
    with pytest.raises(CohortError, match="time after dose"):
        plots.visual_predictive_check(censored, x="time after dose")
    with pytest.raises(SettingError, match="`x` is 'day'"):
        plots.visual_predictive_check(censored, x="day")
