"""Figures of every kind are drawn, with what they should show."""

import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized.diagnostics import diagnose, plots, residuals
from pyro_amortized.errors import CohortError


@pytest.mark.slow
def test_figures_of_a_fit_and_of_a_calibration_are_drawn(fit, calibration, tmp_path):
    figures = {
        "fits": plots.individual_fits(fit, num_draws=30, max_individuals=6),
        "training": plots.training_curve(fit.guide.history),
        "ranks": plots.rank_histogram(calibration),
    }
    for name, figure in figures.items():
        path = tmp_path / f"{name}.png"
        figure.savefig(path, dpi=40)
        assert path.stat().st_size > 3000
    axes = figures["fits"].axes
    drawn = sum(len(line.get_xdata()) for line in axes[0].lines if line.get_marker() == "o")
    assert drawn == int(fit.cohort["y"].observed[0].sum())
    with pytest.raises(CohortError, match="cannot be shown"):
        plots.individual_fits(fit, series="z")


@pytest.mark.slow
def test_every_figure_is_drawn(weighted, tmp_path):
    before = dict(rcParams)
    diagnosis = diagnose(weighted, num_individuals=40, num_draws=100, seed=1)
    r = residuals(weighted, num_simulations=100)
    figures = {
        "fits": plots.individual_fits(weighted, num_draws=30, max_individuals=5),
        "goodness": plots.goodness_of_fit(r),
        "errors": plots.distribution_errors(r),
        "effects": plots.random_effects(weighted),
        "covariates": plots.effects_by_covariate(weighted),
        "check": plots.visual_predictive_check(weighted, num_simulations=30),
        "forest": plots.forest({"one": weighted, "two": weighted}),
        "profile": plots.profile(pa.profile_likelihood(weighted, "sigma")),
        "battery": plots.battery(diagnosis),
        "bands": plots.rank_bands(diagnosis.calibration),
        "recovery": plots.recovery(diagnosis.calibration),
        "ranks": plots.rank_histogram(diagnosis.calibration),
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
