"""Pictures of simulations, doses and designs show their numbers."""

import numpy as np
import pytest

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots, to_arviz
from pyro_amortized.errors import SettingError
from tests.applications.kit import STEADY, known, patients
from tests.applications.test_design_evaluation import LINEAR, linear, study

PLANS = {"a": nlme.regimen(100, 12, 3), "b": nlme.regimen(50, 12, 3)}


@pytest.fixture(scope="module")
def simulation():
    exposure = pa.Exposure(above=1.0)
    return pa.simulate(known(), PLANS, num_individuals=20, exposure=exposure, seed=1)


def test_bands_of_every_regimen_and_the_exposure(simulation):
    figure = plots.simulated_bands(simulation, metric="trough")
    titles = [ax.get_title() for ax in figure.axes if ax.get_visible()]
    assert titles[:2] == ["a", "b"]
    (median, limit) = figure.axes[0].lines
    expected = simulation.bands(residual_error=False)
    assert median.get_ydata() == pytest.approx(expected["median"][expected["regimen"] == "a"])
    assert list(limit.get_ydata()) == [1.0, 1.0]
    with pytest.raises(SettingError, match="no metric 'dose'"):
        plots.simulated_bands(simulation, metric="dose")
    with pytest.raises(SettingError, match="`simulation` is a dict"):
        plots.simulated_bands({})


def test_bands_of_seen_individuals():
    seen = pa.simulate(known(), PLANS, conditional_on=patients(2), num_draws=50, seed=1)
    figure = plots.simulated_bands(seen, by_individual=True)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["1", "2"]


def test_the_group_of_arviz(simulation):
    group = to_arviz(simulation)["predictions"]
    assert dict(group["y"].sizes) == {
        "chain": 1, "draw": 1, "regimen": 2, "individual": 20, "time": 41
    }  # fmt: skip
    auc = group["auc"].sel(regimen="b").values.ravel()
    assert np.array_equal(auc, simulation.exposures["auc"]["b"].numpy().ravel())
    assert group.attrs["uncertainty"] == "individuals"


def test_doses_of_a_range_and_of_candidates():
    target = pa.Target.auc(40, 60, window=STEADY)
    options = {"target": target, "regimen": nlme.regimen(1, 12, 2), "num_draws": 500}
    within = pa.recommend(known(), patients(2), (10.0, 1000.0), **options)
    figure = plots.recommended_dose(within, individual="2")
    left = figure.axes[0]
    assert float(left.lines[1].get_xdata()[0]) == pytest.approx(float(within.amounts[1]))
    among = plots.recommended_dose(pa.recommend(known(), None, [100, 200], **options))
    ticks = [x.get_text() for x in among.axes[0].get_xticklabels()]
    assert ticks == ["100", "200"]
    with pytest.raises(SettingError, match="no patient '3'"):
        plots.recommended_dose(within, individual="3")


def test_expected_errors_of_designs():
    designs = {"four": study(), "two": study([0.0, 1.0])}
    result = pa.evaluate_designs(pa.population(linear, LINEAR), designs, num_simulated=60)
    (ax,) = plots.expected_errors(result).axes
    assert [x.get_text() for x in ax.get_yticklabels()] == list(LINEAR)
    assert len(ax.get_legend().get_texts()) == 2
