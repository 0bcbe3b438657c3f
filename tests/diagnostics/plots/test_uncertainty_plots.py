"""Figures of intervals can be drawn into a given panel."""

from matplotlib.figure import Figure

from pyro_amortized.diagnostics import plots


def test_a_figure_is_drawn_into_a_given_panel(weighted):
    ax = Figure().subplots()
    assert plots.forest(weighted, ax=ax) is ax.figure
    assert len(ax.get_yticklabels()) == 5
