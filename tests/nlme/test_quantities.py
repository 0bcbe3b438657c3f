"""Arguments of closed forms and solvers: numbers, tensors without a dimension, wrong shapes."""

import pytest
import torch

from pyro_amortized import Doses, nlme
from pyro_amortized.errors import ModelError

N = 3
TIMES = torch.tensor([[0.5, 2.0, 7.0]], dtype=torch.float64).expand(N, -1)
DOSES = Doses(torch.zeros(N, 2).double(), torch.tensor([[100.0, 0.0]]).double().expand(N, -1))
ONES = torch.ones(N, dtype=torch.float64)

FORMS = [
    (nlme.one_compartment, {"cl": 1.5, "v": 10.0}),
    (nlme.one_compartment, {"cl": 1.5, "v": 10.0, "ka": 2.0}),
    (nlme.two_compartments, {"cl": 1.5, "v": 10.0, "q": 0.5, "v2": 20.0}),
    (
        nlme.three_compartments,
        {"cl": 1.5, "v": 10.0, "q": 0.5, "v2": 20.0, "q3": 0.2, "v3": 9.0, "ka": 1.0},
    ),
    (nlme.metabolite, {"cl": 1.5, "v": 10.0, "fm": 0.5, "clm": 1.0, "vm": 4.0}),
]


@pytest.mark.parametrize(("form", "parameters"), FORMS)
def test_numbers_and_tensors_without_a_dimension(form, parameters):
    expected = form(TIMES, DOSES, **{n: x * ONES for n, x in parameters.items()})
    kinds = [float, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float64)]
    for kind in kinds:
        given = form(TIMES, DOSES, **{n: kind(x) for n, x in parameters.items()})
        assert given.shape == (N, 3)
        assert torch.allclose(given, expected, rtol=1e-6)
    whole = form(TIMES, DOSES, **(parameters | {"v": 10}))  # a whole number
    assert torch.allclose(whole, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (None, "`cl` is None"),
        ([1.0], "`cl` is a list"),
        (torch.ones(5), r"`cl` has the shape \(5,\); there are 3 individuals"),
        (torch.ones(3, 2), r"`cl` has the shape \(3, 2\)"),
    ],
)
def test_arguments_of_the_wrong_kind_or_shape(value, match):
    with pytest.raises(ModelError, match=match):
        nlme.one_compartment(TIMES, DOSES, cl=value, v=ONES)


def test_doses_and_times_of_the_wrong_kind():
    with pytest.raises(ModelError, match="`doses` is a NoneType"):
        nlme.one_compartment(TIMES, None, cl=ONES, v=ONES)
    with pytest.raises(ModelError, match=r"`times` has shape \(3,\)"):
        nlme.one_compartment(TIMES[0], DOSES, cl=ONES, v=ONES)


def test_a_solver_takes_numbers():
    def decay(t, x, p):
        return -p["k"][:, None] * x

    start = torch.ones(1, dtype=torch.float64)
    expected = torch.exp(-0.3 * TIMES)
    for k in (0.3, torch.tensor(0.3), torch.tensor(0.3).double(), 0.3 * ONES):
        assert torch.allclose(nlme.solve(decay, start, TIMES, {"k": k})[..., 0], expected, 1e-5)
    with pytest.raises(ModelError, match=r"`parameters\['k'\]` is a list"):
        nlme.solve(decay, start, TIMES, {"k": [0.3]})
    with pytest.raises(ModelError, match="`initial` is a list"):
        nlme.solve(decay, [1.0], TIMES, {"k": 0.3})


def test_delivery_takes_numbers():
    by_number = nlme.Delivery(lag=0.25, bioavailability={1: 0.5})
    by_tensor = nlme.Delivery(lag=0.25 * ONES, bioavailability={1: 0.5 * ONES})
    one, other = (
        nlme.one_compartment(TIMES, DOSES, cl=1.0, v=10.0, ka=1.0, delivery=x)
        for x in (by_number, by_tensor)
    )
    assert torch.equal(one, other)


def test_a_fraction_of_each_dose_is_refused_and_the_way_is_right():
    from dataclasses import replace

    amounts = torch.tensor([[100.0, 50.0], [80.0, 20.0], [10.0, 10.0]], dtype=torch.float64)
    doses = replace(DOSES, amounts=amounts, times=torch.tensor([[0.0, 1.0]]).double().expand(3, -1))
    fraction = (amounts / 100) ** 0.5
    with pytest.raises(ModelError, match="has a value for each dose"):
        nlme.one_compartment(
            TIMES, doses, cl=ONES, v=ONES, delivery=nlme.Delivery(bioavailability=fraction)
        )
    changed = replace(doses, amounts=fraction * doses.amounts)
    concentration = nlme.one_compartment(TIMES, changed, cl=ONES, v=10 * ONES)
    first = fraction[:, :1] * amounts[:, :1] / 10 * torch.exp(-0.1 * TIMES)
    second = fraction[:, 1:] * amounts[:, 1:] / 10 * torch.exp(-0.1 * (TIMES - 1))
    assert torch.allclose(concentration, first + torch.where(TIMES >= 1, second, 0.0))
