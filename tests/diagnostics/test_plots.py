"""Figures of every kind are drawn, with what they should show; bad requests are refused."""

import pytest
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized.diagnostics import check_model, diagnose, plots, residuals
from pyro_amortized.errors import CohortError
from tests.exact import linear_cohort, linear_program


@pytest.fixture(scope="module")
def weighted(linear_guide):
    """A fit of data with two covariates."""
    cohort = linear_cohort()
    covariates = {"dose": torch.arange(40.0).remainder(2), "age": torch.linspace(20, 60, 40)}
    cohort = pa.Cohort(dict(cohort.series), covariates=covariates)
    options = pa.TrainingOptions(max_epochs=2, batch_size=256)
    guide = pa.train(
        linear_program, cohort, num_simulations=4000, seed=1, options=options, progress=False
    )
    return pa.fit_population(linear_program, guide, cohort, num_draws=300, seed=1)


def test_every_figure_is_drawn(weighted, tmp_path):
    before = dict(rcParams)
    found = diagnose(weighted, num_individuals=100, num_draws=200, seed=1)
    r = residuals(weighted, num_simulations=200)
    figures = {
        "fits": plots.individual_fits(weighted, num_draws=30, max_individuals=5),
        "goodness": plots.goodness_of_fit(r),
        "errors": plots.distribution_errors(r),
        "effects": plots.random_effects(weighted),
        "covariates": plots.effects_by_covariate(weighted),
        "check": plots.visual_predictive_check(weighted, num_simulations=60),
        "forest": plots.forest({"one": weighted, "two": weighted}),
        "profile": plots.profile(pa.profile_likelihood(weighted, "sigma")),
        "battery": plots.battery(found),
        "bands": plots.rank_bands(found.calibration),
        "recovery": plots.recovery(found.calibration),
        "ranks": plots.rank_histogram(found.calibration),
        "training": plots.training_curve(weighted.guide.history),
    }
    for name, figure in figures.items():
        assert isinstance(figure, Figure)
        path = tmp_path / f"{name}.png"
        figure.savefig(path, dpi=30)
        assert path.stat().st_size > 1500, name
    assert dict(rcParams) == before
    drawn = figures["goodness"].axes[0].lines[0]
    assert len(drawn.get_xdata()) == weighted.cohort.num_observations
    assert len(figures["covariates"].axes) == 2 * 2


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


def test_figures_go_where_they_are_told(weighted):
    ax = Figure().subplots()
    assert plots.forest(weighted, ax=ax) is ax.figure
    assert len(ax.get_yticklabels()) == 5


def test_no_covariates_no_figure(fit):
    with pytest.raises(CohortError, match="no covariates"):
        plots.effects_by_covariate(fit)


def test_prior_predictive_shows_individuals_from_the_whole_table():
    """Twenty lines of eighty individuals: not of the first twenty, who may be one arm."""
    cohort = linear_cohort(num=80, missing=0.0)
    figure = plots.prior_predictive(check_model(linear_program, cohort, num_draws=20))
    first_times = {float(line.get_xdata()[0]) for line in figure.axes[0].lines[:20]}
    shown = [i for i, row in enumerate(cohort["y"].times.tolist()) if row[0] in first_times]
    assert len(shown) == 20
    assert max(shown) > 70
