"""Amounts that are carried from dose to dose equal the sum over the doses."""

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses
from pyro_amortized.nlme.closed_form import compartments

NUM, NUM_DOSES, NUM_TIMES = 5, 6, 20


def uniform(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def scenario(infusions, depot, padding):
    """Doses at random times, some of them at the same one or at that of an observation."""
    generator = torch.Generator().manual_seed(1)
    times = 30 * uniform(generator, NUM, NUM_TIMES) - 2
    begin = 24 * uniform(generator, NUM, NUM_DOSES)
    begin[:, 1] = begin[:, 0]
    times[:, 3] = begin[:, 2]
    amounts = 10 + uniform(generator, NUM, NUM_DOSES)
    durations = torch.zeros_like(begin)
    if infusions:
        durations = 5 * uniform(generator, NUM, NUM_DOSES) * (torch.arange(NUM_DOSES) % 2)
    compartment = torch.ones_like(begin, dtype=torch.long)
    if depot:
        compartment[:, 4] = 2
    given = torch.ones_like(begin, dtype=torch.bool)
    given[2:, -padding:] = padding == 0
    doses = Doses(begin, amounts * given, durations, compartment=compartment, given=given)
    parameters = 0.5 + uniform(generator, 3, 4, NUM)
    return times, doses, parameters


def predicted(times, doses, parameters, depot):
    ka, cl, v, q = (x.clone().requires_grad_() for x in parameters.unbind(1))
    delivery = nlme.Delivery(lag=0.3 * ka.detach(), bioavailability=0.5 + 0.1 * q.detach())
    value = nlme.two_compartments(
        times, doses, cl=cl, v=v, q=q, v2=2 * v, ka=ka if depot else None, delivery=delivery
    )
    slopes = torch.autograd.grad(value.sum(), [cl, v, q])
    return value.detach(), torch.stack(slopes)


@pytest.mark.parametrize("infusions", [False, True])
@pytest.mark.parametrize("depot", [False, True])
@pytest.mark.parametrize("padding", [0, 2])
def test_carried_amounts_equal_the_sum(infusions, depot, padding, monkeypatch):
    case = scenario(infusions, depot, padding)
    carried = predicted(*case, depot)
    monkeypatch.setattr(compartments, "can_be_carried", lambda arriving: False)
    summed = predicted(*case, depot)
    assert summed[0].abs().max() > 1
    for new, old in zip(carried, summed, strict=True):
        assert torch.allclose(new, old, rtol=1e-9, atol=1e-9)


def test_the_ends_of_an_effect_are_left_to_the_sum():
    doses = scenario(False, False, 0)[1]
    assert compartments.can_be_carried(nlme.dosing.arrivals(doses))
    reset = torch.zeros_like(doses.given)
    reset[0, int(doses.times[0].argmax())] = True
    ended = Doses(doses.times, doses.amounts, reset=reset)
    assert not compartments.can_be_carried(nlme.dosing.arrivals(ended))


def test_a_sample_long_before_the_first_dose_is_zero():
    """Where nothing has been given, nothing decays: no overflow, also in the gradient."""
    doses = Doses(torch.tensor([[240.0, 264.0]]).double(), torch.full((1, 2), 100.0).double())
    times = torch.tensor([[0.0, 250.0]]).double()
    cl, v, ka = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1, 10, 30))
    amount = nlme.one_compartment(times, doses, cl=cl, v=v, ka=ka)
    slopes = torch.autograd.grad(amount.sum(), [cl, v, ka])
    assert amount.detach()[0, 0] == 0.0
    assert amount.detach()[0, 1] > 1
    assert all(bool(x.isfinite()) for x in slopes)


def test_nothing_runs_on_after_the_last_infusion():
    """The rates of ended infusions leave no rounding error, which would be a floor, or negative."""
    begin = torch.tensor([[0.0, 1.0, 2.0]]).double()
    amounts, durations = (
        torch.tensor([x]).double() for x in ([85.5, 16.4, 18.1], [3.05, 2.54, 1.41])
    )
    doses = Doses(begin, amounts, durations)
    times = torch.tensor([[60.0]]).double()
    one = torch.ones(1, dtype=torch.float64)
    late = nlme.one_compartment(times, doses, cl=one, v=one)
    exact = amounts / durations * (torch.exp(durations) - 1) * torch.exp(begin - times)
    assert torch.allclose(late, exact.sum(-1, keepdim=True), rtol=1e-9, atol=0.0)
