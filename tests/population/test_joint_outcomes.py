"""A marker and the event that ends it: likelihood, simulation, dropout."""

import math

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import CohortError
from tests import outcome_models as om


@pytest.fixture(scope="module")
def cohort():
    return om.simulated(om.joint, om.joint_design(200), om.JOINT, seed=3)


def test_nothing_is_recorded_after_a_simulated_dropout(cohort):
    marker, dropout = cohort["marker"], cohort["dropout"].values[:, 0]
    left = dropout[:, 1] == 1
    assert 0.2 < float(left.double().mean()) < 0.95
    late = (marker.times > dropout[:, :1]) & left[:, None]
    assert not bool((late & marker.observed).any())
    assert bool(marker.observed[~late].all())


def test_a_design_with_dropouts_is_simulated_as_planned(cohort):
    """Who left early in the data may stay in a simulation."""
    again = om.simulated(om.joint, cohort, om.JOINT, seed=4)
    stays = again["dropout"].values[:, 0, 1] == 0
    assert bool(again["marker"].observed[stays].all())


def test_the_likelihood_is_that_of_quadrature(cohort):
    marginal = pa.marginal_likelihood(om.joint, cohort, om.JOINT, seed=1)
    exact = float(om.exact_joint_minus2ll(om.joint, cohort, om.JOINT).sum())
    assert abs(marginal.minus2ll - exact) < 4 * marginal.minus2ll_mc_error + 1e-6


def test_the_hazard_of_the_current_value_by_quadrature_is_the_closed_one():
    phi = torch.tensor([[5.0, -0.3], [4.0, 0.2]]).double()
    level, slope = phi.unbind(-1)
    closed = nlme.gompertz_hazard(torch.exp(1 - 0.7 * level), -0.7 * slope)
    integrated = nlme.integrated_hazard(lambda t: 1 - 0.7 * (level[:, None] + slope[:, None] * t))
    times = torch.tensor([[1.0, 4.0], [2.0, 6.0]]).double()
    for x, expected in zip(integrated(times), closed(times), strict=True):
        torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-12)


def test_the_joint_fit_corrects_the_slope_that_dropout_biases(cohort):
    fit = pa.fit_population(om.joint, cohort, seed=1)
    errors = (fit.vector - fit.structure.unconstrain_population(om.JOINT)) / (
        fit.covariance.diagonal().sqrt()
    )
    assert float(errors.abs().max()) < 3.5
    assert bool(fit.estimated.all())


def test_values_after_a_dropout_are_refused(cohort):
    series = dict(cohort.series)
    series["marker"] = pa.Series(series["marker"].times, series["marker"].values)
    with pytest.raises(CohortError, match="after its 'dropout'"):
        pa.read_structure(om.joint, pa.Cohort(series))


def test_a_hazard_as_a_state_of_an_ode_is_the_closed_one():
    record = nlme.event_series(torch.tensor([2.0, 3.0]).double(), torch.tensor([1, 0]))
    rate, slope = torch.tensor([0.1, 0.3]).double(), torch.tensor([0.4, -0.2]).double()

    def rates(t, x, p):
        return p["rate"] * torch.exp(p["slope"] * t)

    def curves(times):
        x = nlme.solve(
            lambda t, x, p: torch.stack([p["slope"] * x[..., 0], x[..., 0]], -1),
            torch.stack([rate, torch.zeros_like(rate)], -1),
            times,
            {"slope": slope},
        )
        return x[..., 0].log(), x[..., 1]

    by_ode = nlme.EventTimes(nlme.Hazard(curves), record).log_prob(record.values)
    closed = nlme.EventTimes(nlme.gompertz_hazard(rate, slope), record).log_prob(record.values)
    torch.testing.assert_close(by_ode, closed, rtol=1e-5, atol=1e-5)
    torch.manual_seed(0)
    drawn = nlme.EventTimes(nlme.Hazard(curves), record).sample()
    torch.manual_seed(0)
    expected = nlme.EventTimes(nlme.gompertz_hazard(rate, slope), record).sample()
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)
    assert math.isfinite(float(drawn.sum()))
