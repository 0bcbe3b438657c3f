import math

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.applications.exposure import Exposure, panels, quadrature_weights, unit_nodes
from pyro_amortized.errors import SettingError

from .kit import concentration


def test_weights_integrate_polynomials_exactly():
    weights = quadrature_weights(7)
    nodes = unit_nodes(7)
    for degree in range(7):
        assert float(weights @ nodes**degree) == pytest.approx(1 / (degree + 1), rel=1e-12)


@pytest.mark.parametrize("ka", [0.05, 1.0, 8.0])
def test_metrics_of_absorption_and_elimination(ka):
    k, v = 4 / 70, 70.0
    divided = panels((0.0, 24.0), nlme.regimen(100))
    values = torch.tensor([concentration(t, ka=ka) for t in divided.nodes.tolist()]).double()
    metrics = divided.metrics(values, above=0.8)
    area = 100 * ka / (v * (ka - k)) * ((1 - math.exp(-24 * k)) / k - (1 - math.exp(-24 * ka)) / ka)
    peak = min(24.0, math.log(ka / k) / (ka - k))
    assert float(metrics["auc"]) == pytest.approx(area, rel=1e-4)
    assert float(metrics["average"]) == pytest.approx(area / 24, rel=1e-4)
    assert float(metrics["cmax"]) == pytest.approx(concentration(peak, ka=ka), rel=1e-3)
    assert float(metrics["tmax"]) == pytest.approx(peak, abs=0.15)
    assert float(metrics["trough"]) == pytest.approx(concentration(24, ka=ka), rel=1e-6)
    grid = torch.linspace(0, 24, 24_001).double()
    above = torch.tensor([concentration(t, ka=ka) for t in grid.tolist()]) > 0.8
    assert float(metrics["time_above"]) == pytest.approx(
        float(above.double().mean()) * 24, abs=0.15
    )


def test_a_jump_at_a_dose_belongs_to_the_next_panel():
    divided = panels((0.0, 24.0), nlme.regimen(100, 12, 2))
    values = torch.where(divided.nodes < 12, torch.exp(-divided.nodes), 2.0).double()
    metrics = divided.metrics(values, above=1.5)
    assert float(metrics["auc"]) == pytest.approx(1 - math.exp(-12) + 24, rel=1e-4)
    assert float(metrics["time_above"]) == pytest.approx(12.0)
    assert float(metrics["cmin"]) == pytest.approx(math.exp(-12), rel=1e-4)


def test_windows():
    plan = nlme.regimen(100, 12, 3)
    assert Exposure().window(plan) == (24.0, 36.0)
    assert Exposure(start=0).window(plan) == (0.0, 36.0)
    with pytest.raises(SettingError, match="single dose"):
        Exposure().window(nlme.regimen(100))
    with pytest.raises(SettingError, match="The window goes from 40 to 36"):
        Exposure(start=40).window(plan)
    with pytest.raises(SettingError, match="The window goes from 2 to 1"):
        Exposure(start=2, end=1)


def test_infusions_end_at_an_edge():
    divided = panels((0.0, 12.0), nlme.regimen(100, 12, duration=2.0))
    assert 2.0 in divided.low.tolist()
    steady = panels((0.0, 12.0), nlme.regimen(100, 12, duration=15.0, steady_state=True))
    assert 3.0 in steady.low.tolist()
