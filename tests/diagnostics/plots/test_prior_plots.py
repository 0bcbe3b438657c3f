"""Figures of the prior predictive distribution."""

from pyro_amortized.diagnostics import check_model, plots
from pyro_amortized.diagnostics.model_check import share_text
from tests.exact import linear_cohort, linear_program


def test_prior_predictive_shows_individuals_from_the_whole_table():
    """Twenty lines of eighty individuals are not all of the first twenty, which may be one arm."""
    cohort = linear_cohort(num=80, missing=0.0)
    figure = plots.prior_predictive(check_model(linear_program, cohort, num_draws=20))
    first_times = {float(line.get_xdata()[0]) for line in figure.axes[0].lines[:20]}
    shown = [i for i, row in enumerate(cohort["y"].times.tolist()) if row[0] in first_times]
    assert len(shown) == 20
    assert max(shown) > 70


def test_all_means_all():
    assert share_text(1.0) == "100 %"
    assert share_text(0.9999) == "more than 99 %"
    assert share_text(1e-5) == "less than 1 %"
    assert share_text(0.0) == "0 %"
    assert share_text(0.914) == "91 %"
