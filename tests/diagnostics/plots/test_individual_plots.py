"""Curves of individuals have points at every dose, sample and peak."""

import pytest
import torch
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized.diagnostics.plots.individual_plots import (
    _add_titles,
    _fine_times,
    _on_fine_grid,
)
from pyro_amortized.diagnostics.plots.panels import set_log_panels


def repeated_doses():
    """Seventeen doses over 204 hours, two samples; the second individual has one infusion."""
    times = torch.tensor([[10.3, 204.0], [1.0, 204.0]])
    doses = torch.arange(17.0).expand(2, -1) * 12
    given = torch.ones(2, 17, dtype=torch.bool)
    given[1, 1:] = False
    durations = torch.zeros(2, 17)
    durations[1, 0] = 3.7
    return pa.Cohort(
        {"y": pa.Series(times, torch.ones(2, 2))},
        pa.Doses(times=doses, amounts=torch.ones(2, 17), given=given, durations=durations),
    )


def test_every_dose_and_sample_is_a_point_of_the_curve():
    cohort = repeated_doses()
    times = _fine_times(cohort, "y", 0, 80)
    for dose in cohort.doses.times[0].tolist():
        assert (times == dose).any()
        after = times[(times > dose) & (times < dose + 12)]
        assert dose == 204 or len(after) >= 9
        before = times[times < dose]
        assert dose == 0 or float(dose - before.max()) < 1e-3
    assert (times == cohort["y"].times[0, 0]).any()
    assert (times.diff() > 0).all()
    assert (times[0], times[-1]) == (0.0, 204.0)
    assert (_fine_times(cohort, "y", 1, 80) == 3.7).any()  # the end of the infusion


def test_grids_of_different_lengths_are_padded():
    fine = _on_fine_grid(repeated_doses(), ["y"], 80)
    assert fine["y"].times.shape[0] == 2
    assert (fine["y"].times.diff(dim=1) >= 0).all()
    assert (fine["y"].times[:, -1] == 204).all()


def test_without_doses_the_grid_has_the_samples():
    times = torch.tensor([[0.0, 0.1234, 5.0]])
    cohort = pa.Cohort({"y": pa.Series(times, torch.ones(1, 3))})
    grid = _fine_times(cohort, "y", 0, 11)
    assert len(grid) == 12
    assert (grid == times[0, 1]).any()


@pytest.mark.parametrize("is_category", [True, False])
def test_the_title_names_what_is_drawn(is_category):
    """A band of new values 0 and 1 would be nearly all of them, and is not drawn."""
    figure = Figure()
    _add_titles(figure, "y", "", is_category, False)
    title = figure.get_suptitle()
    assert ("band of new observations" in title) != is_category
    assert ("probability of a 1" in title) == is_category


def test_logarithmic_axes_end_below_the_values_and_above_all_curves():
    """Panels that share an axis keep the largest curve in view."""
    first, second = Figure().subplots(1, 2, sharey=True)
    values = torch.tensor([[0.3, 20.0, 0.0], [1.0, 500.0, 1.0]])
    series = pa.Series(torch.arange(3.0).expand(2, -1), values)
    first.plot([0, 1, 2], [1e-30, 20.0, 0.5])
    second.plot([0, 1, 2], [1.0, 500.0, 1.0])
    set_log_panels([first, second], series)
    for ax in (first, second):
        low, high = ax.get_ylim()
        assert low == pytest.approx(0.1)
        assert high > 500
