"""Responses to doses: equal rates, steady states, and infusions of length zero."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import Doses, nlme
from tests.nlme.kit import ONE, parameters


def test_equal_rates_have_value_and_gradient():
    """ka = k: the textbook formula is 0 / 0 there."""
    doses = Doses(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    times = torch.tensor([[1.0, 5.0]], dtype=torch.float64)

    def concentration(ka):
        one = torch.ones(1, dtype=torch.float64)
        return nlme.one_compartment(times, doses, ka=ka, cl=0.2 * one, v=one)

    ka = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    value = concentration(ka)
    assert torch.allclose(value, 0.2 * times * torch.exp(-0.2 * times))
    gradient = torch.autograd.grad(value[0, 1], ka)[0]
    step = 1e-4
    numeric = (concentration(ka + step) - concentration(ka - step))[0, 1] / (2 * step)
    assert torch.allclose(gradient, numeric, rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 3), st.floats(0.2, 4), st.floats(0.5, 30), st.floats(0, 12))
def test_a_steady_state_repeats_itself(k, interval, duration, lag):
    """The concentration one interval later is the same, for any overlap of infusions and lag."""
    one = ONE
    doses = Doses(
        100 + interval * torch.arange(4, dtype=torch.float64)[None],
        torch.full((1, 4), 7.0).double(),
        torch.full((1, 4), duration, dtype=torch.float64),
        intervals=torch.tensor([[interval, 0, 0, 0]], dtype=torch.float64),
        steady_state=torch.tensor([[1, 0, 0, 0]]),
    )
    phase = torch.linspace(0, 0.99 * interval, 7, dtype=torch.float64)
    times = torch.cat([100 + phase, 100 + 2 * interval + phase])[None]
    delivery = nlme.Delivery(lag=lag * one)
    y = nlme.one_compartment(times, doses, cl=k * one, v=one, delivery=delivery)[0]
    assert torch.allclose(y[:7], y[7:], rtol=1e-9)
    mean = 7.0 / interval / k
    assert float(y[:7].min()) <= mean * (1 + 1e-9)
    assert float(y[:7].max()) >= mean * (1 - 1e-9) or interval > 0.1


def test_boluses_superpose_infusions_of_length_zero():
    times = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64)
    p = parameters()
    bolus = Doses(
        torch.zeros(1, 1).double(), torch.ones(1, 1).double(), compartment=torch.tensor([[2]])
    )
    short = Doses(
        torch.zeros(1, 1).double(),
        torch.ones(1, 1).double(),
        torch.full((1, 1), 1e-7).double(),
        torch.tensor([[2]]),
    )
    concentrations = [nlme.one_compartment(times, d, **p) for d in (bolus, short)]
    assert torch.allclose(*concentrations, rtol=1e-6)
