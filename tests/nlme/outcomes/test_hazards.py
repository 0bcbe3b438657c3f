"""Hazards against SciPy, numerical integrals, and their own inverse."""

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError

TIMES = torch.tensor([[0.0, 0.3, 1.0, 2.5, 7.0], [0.1, 0.2, 3.0, 3.0, 4.0]], dtype=torch.float64)
TWO = torch.tensor([2.0, 3.0], dtype=torch.float64)
HALF = torch.tensor([0.5, 1.7], dtype=torch.float64)

FAMILIES = {
    "exponential": nlme.exponential_hazard(HALF),
    "weibull": nlme.weibull_hazard(TWO, HALF + 0.3),
    "gompertz": nlme.gompertz_hazard(0.2 * HALF, torch.tensor([0.3, 0.0]).double()),
    "falling gompertz": nlme.gompertz_hazard(HALF, torch.tensor([-0.3, -1.0]).double()),
    "loglogistic": nlme.loglogistic_hazard(TWO, TWO),
    "piecewise": nlme.piecewise_hazard(
        torch.tensor([1.0, 2.0]).double(), torch.tensor([[0.2, 1.0, 0.1], [1.0, 0.5, 2.0]]).double()
    ),
    "scaled": nlme.weibull_hazard(TWO, TWO).scaled(HALF),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cumulative_hazard_is_the_integral_of_the_hazard(name):
    hazard = FAMILIES[name]
    # Midpoints of pieces that the changes of the piecewise hazard divide.
    fine = torch.linspace(0.0, 7.0, 700_001, dtype=torch.float64).expand(2, -1)
    middle = (fine[:, 1:] + fine[:, :-1]) / 2
    parts = hazard(middle)[0].exp() * (fine[:, 1:] - fine[:, :-1])
    total = torch.cat([torch.zeros(2, 1).double(), parts.cumsum(-1)], -1)
    place = (TIMES / 1e-5).round().long()
    torch.testing.assert_close(hazard(TIMES)[1], total.gather(1, place), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_inverse_gives_the_times_back(name):
    hazard = FAMILIES[name]
    torch.testing.assert_close(hazard.inverse(hazard(TIMES)[1]), TIMES, rtol=1e-9, atol=1e-9)


def test_weibull_and_loglogistic_hazards_are_those_of_scipy():
    for hazard, reference in (
        (
            nlme.weibull_hazard(TWO, HALF),
            scipy.stats.weibull_min(HALF[:, None], scale=TWO[:, None]),
        ),
        (nlme.loglogistic_hazard(TWO, HALF), scipy.stats.fisk(HALF[:, None], scale=TWO[:, None])),
    ):
        times = TIMES.clamp(min=0.01)
        log_hazard, cumulative = hazard(times)
        np.testing.assert_allclose(cumulative, -reference.logsf(times), rtol=1e-10)
        np.testing.assert_allclose(log_hazard - cumulative, reference.logpdf(times), rtol=1e-9)


def test_a_falling_gompertz_hazard_may_never_reach_a_target():
    hazard = nlme.gompertz_hazard(torch.ones(1), torch.tensor([-1.0]))
    assert hazard.inverse(torch.tensor([[0.5, 1.5]])).tolist()[0][1] == torch.inf


@pytest.mark.parametrize("name", ["weibull", "gompertz", "loglogistic"])
def test_the_quadrature_agrees_with_closed_forms(name):
    closed = FAMILIES[name]
    integrated = nlme.integrated_hazard(lambda t: closed(t)[0])
    torch.testing.assert_close(integrated(TIMES)[1], closed(TIMES)[1], rtol=2e-4, atol=1e-8)


def test_gradients_of_a_gompertz_hazard_are_finite_at_a_slope_of_zero():
    slope = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    nlme.gompertz_hazard(torch.ones(1).double(), slope)(TIMES[:1])[1].sum().backward()
    assert bool(slope.grad.isfinite().all())


def test_curves_of_another_form_are_refused():
    with pytest.raises(ModelError, match="a pair of tensors"):
        nlme.Hazard(lambda t: t)(TIMES)
    with pytest.raises(ModelError, match="one more rate than changes"):
        nlme.piecewise_hazard(torch.tensor([1.0]), torch.ones(3))
