"""Strata, corrections and percentiles of visual predictive checks."""

import pytest

from pyro_amortized.diagnostics import plots
from pyro_amortized.errors import CohortError


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
