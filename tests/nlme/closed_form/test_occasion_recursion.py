"""Closed forms with occasions: against constant parameters, the ODE, and each other."""

import pytest
import torch

from pyro_amortized import Doses, nlme
from pyro_amortized.cohort import Series
from pyro_amortized.errors import ModelError

TIMES = torch.tensor(
    [[0.5, 2.0, 12.0, 24.5, 26.0, 36.0], [1.0, 3.0, 10.0, 24.0, 30.0, 40.0]]
).double()


def visits(times=TIMES, change=24.0):
    begins = torch.tensor([[0.0, change]]).double().expand(len(times), -1)
    labels = torch.tensor([[1.0, 2.0]]).double().expand(len(times), -1)
    return nlme.occasions(Series(begins, labels), times)


def doses(**columns):
    base = {
        "times": torch.tensor([[0.0, 12.0, 24.0], [0.0, 23.0, 24.0]]).double(),
        "amounts": torch.tensor([[100.0, 50.0, 100.0], [80.0, 40.0, 0.0]]).double(),
    }
    return Doses(**(base | columns))


KINDS = {
    "bolus": ({}, None),
    "infusion": ({"durations": torch.tensor([[1.0, 14.0, 2.0], [3.0, 4.0, 0.0]]).double()}, None),
    "oral": ({}, 1.3),
    "oral, equal rates": ({}, 0.2),
    "depot and central": ({"compartment": torch.tensor([[1, 2, 1], [2, 1, 1]])}, 0.7),
    "reset": ({"reset": torch.tensor([[False, False, True], [False, True, False]])}, 1.3),
    "steady state": (
        {
            "steady_state": torch.tensor([[1, 0, 1], [2, 0, 0]]),
            "intervals": torch.tensor([[12.0, 0.0, 12.0], [8.0, 0.0, 0.0]]).double(),
        },
        1.3,
    ),
    "steady infusion": (
        {
            "steady_state": torch.tensor([[1, 0, 0], [1, 0, 0]]),
            "intervals": torch.tensor([[12.0, 0.0, 0.0], [8.0, 0.0, 0.0]]).double(),
            "durations": torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 0.0]]).double(),
        },
        None,
    ),
}
MORE = {
    "one_compartment": {},
    "two_compartments": {"q": 3.0, "v2": 30.0},
    "three_compartments": {"q": 3.0, "v2": 30.0, "q3": 1.0, "v3": 60.0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MORE)
def test_equal_occasions_are_the_closed_form_without_them(name, kind):
    columns, ka = KINDS[kind]
    function, given = getattr(nlme, name), doses(**columns)
    cl = torch.tensor([2.0, 4.0]).double()
    arguments = {"v": torch.tensor([10.0, 20.0]).double(), "ka": ka, **MORE[name]}
    expected = function(TIMES, given, cl=cl, **arguments)
    found = function(TIMES, given, cl=cl.expand(2, -1), occasions=visits(), **arguments)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def one_oral(t, x, p):
    depot, central = x[..., 0], x[..., 1]
    absorbed = p["ka"] * depot
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * central], -1)


@pytest.mark.parametrize("kind", ["oral", "depot and central", "reset"])
def test_what_an_occasion_leaves_is_carried_over_as_in_the_ode(kind):
    given = doses(**KINDS[kind][0])
    cl = torch.tensor([[2.0, 4.0], [6.0, 1.0]]).double()  # (occasion, individual)
    ka = torch.tensor([[1.3, 0.5], [0.4, 2.0]]).double()
    v = torch.tensor([10.0, 20.0]).double()
    closed = nlme.one_compartment(TIMES, given, cl=cl, v=v, ka=ka, occasions=visits())
    states = nlme.solve(
        one_oral,
        torch.zeros(2, 2).double(),
        TIMES,
        {"v": v},
        doses=given,
        piecewise=visits().piecewise({"cl": cl, "ka": ka}),
    )
    torch.testing.assert_close(closed, states[..., 1] / v[:, None], rtol=1e-4, atol=1e-5)


def test_a_volume_that_changes_keeps_the_amount():
    given = Doses(torch.zeros(1, 1).double(), torch.tensor([[100.0]]).double())
    times = torch.tensor([[23.999999, 24.0]]).double()
    v = torch.tensor([[10.0], [20.0]]).double()
    found = nlme.one_compartment(times, given, cl=1.0, v=v, occasions=visits(times))
    assert float(found[0, 0] / found[0, 1]) == pytest.approx(2.0, rel=1e-5)


def test_gradients_are_those_of_differences():
    given = doses(**KINDS["oral"][0])
    cl = torch.tensor([[2.0, 4.0], [6.0, 1.0]]).double().requires_grad_()
    ka = torch.full((2,), 0.6).double().requires_grad_()  # one occasion has the same rate k

    def total(cl, ka):
        v = torch.tensor([10.0, 20.0]).double()
        return nlme.one_compartment(TIMES, given, cl=cl, v=v, ka=ka, occasions=visits()).sum()

    assert torch.autograd.gradcheck(total, (cl, ka), eps=1e-6, atol=1e-6)


def test_other_shapes_and_steady_states_with_a_lag_are_refused():
    with pytest.raises(ModelError, match="there are 2 occasions"):
        nlme.one_compartment(
            TIMES, doses(), cl=torch.ones(3, 2).double(), v=1.0, occasions=visits()
        )
    steady = doses(**KINDS["steady state"][0])
    with pytest.raises(ModelError, match="lag time"):
        nlme.one_compartment(
            TIMES,
            steady,
            cl=1.0,
            v=1.0,
            ka=1.0,
            occasions=visits(),
            delivery=nlme.Delivery(lag=0.5),
        )
