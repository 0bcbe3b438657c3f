"""Closed forms of copied individuals give what they give for each row on its own."""

import pytest
import torch

from pyro_amortized import Cohort, Doses, Series, nlme

NUM, COPIES = 3, 4
TIMES = torch.tensor([[0.0, 1.0, 3.0, 9.0], [0.5, 2.0, 5.0, 30.0], [1.0, 1.0, 2.0, 50.0]]).double()


def doses(kind):
    times = torch.tensor([[0.0, 4.0], [0.0, 8.0], [1.0, 1.0]]).double()
    amounts = torch.tensor([[100.0, 50.0], [80.0, 80.0], [60.0, 0.0]]).double()
    columns = {"given": torch.tensor([[True, True], [True, True], [True, False]])}
    if kind == "infusions":
        columns["durations"] = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.5, 0.0]]).double()
    if kind == "steady states":
        columns["intervals"] = torch.tensor([[12.0, 0.0], [12.0, 12.0], [8.0, 0.0]]).double()
        columns["steady_state"] = torch.tensor([[1, 0], [1, 2], [1, 0]])
    if kind == "reset":
        columns["reset"] = torch.tensor([[False, True], [False, False], [False, False]])
    return Doses(times, amounts, **columns)


def parameters(*names):
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.rand(2, COPIES * NUM, generator=generator, dtype=torch.float64) + 0.5
        for name in names
    }


def both(function, kind, **more):
    """The result for copies, and for the same rows that do not know that they are copies."""
    series = Series(TIMES, torch.ones_like(TIMES))
    repeated = Cohort({"y": series}, doses=doses(kind)).repeat(COPIES)
    assert repeated.doses.copied.num == COPIES
    times = repeated["y"].times
    alone = Doses(**repeated.doses.columns)
    assert alone.copied is None
    return function(times, repeated.doses, **more), function(times, alone, **more)


@pytest.mark.parametrize("kind", ["boluses", "infusions", "steady states", "reset"])
@pytest.mark.parametrize(
    ("function", "names"),
    [
        (nlme.one_compartment, ("cl", "v")),
        (nlme.one_compartment, ("cl", "v", "ka")),
        (nlme.two_compartments, ("cl", "v", "q", "v2", "ka")),
        (nlme.three_compartments, ("cl", "v", "q", "v2", "q3", "v3")),
        (nlme.metabolite, ("cl", "v", "fm", "clm", "vm", "ka")),
    ],
)
def test_copies_give_the_same_concentrations(kind, function, names):
    once, each = both(function, kind, **parameters(*names))
    assert once.shape == each.shape == (2, COPIES * NUM, 4)
    assert torch.allclose(once, each, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["boluses", "infusions", "steady states"])
def test_lag_times_and_fractions_differ_between_copies(kind):
    values = parameters("cl", "v", "ka", "lag", "fraction")
    delivery = nlme.Delivery(
        lag=values["lag"], bioavailability={1: values["fraction"], 2: values["lag"]}
    )
    more = {name: values[name] for name in ("cl", "v", "ka")}
    once, each = both(nlme.one_compartment, kind, delivery=delivery, **more)
    assert torch.allclose(once, each, rtol=1e-12, atol=1e-12)
    assert once.unflatten(1, (COPIES, NUM)).std(1).amin((0, 1))[-1] > 0


def test_gradients_and_parameters_of_other_shapes():
    values = parameters("cl")
    cl = values["cl"].clone().requires_grad_()
    gradients = []
    for result in both(nlme.one_compartment, "boluses", cl=cl, v=torch.tensor(3.0).double()):
        gradients.append(torch.autograd.grad(result.square().sum(), cl)[0])
    assert torch.allclose(*gradients)
    one = torch.ones(1, dtype=torch.float64)
    once, each = both(nlme.one_compartment, "boluses", cl=one, v=one)
    assert once.shape[-2:] == (COPIES * NUM, 4)
    assert torch.allclose(once, each.expand_as(once))


def test_times_that_are_no_copies_are_used_as_they_are():
    repeated = Cohort({"y": Series(TIMES, torch.ones_like(TIMES))}, doses=doses("boluses"))
    repeated = repeated.repeat(COPIES)
    times = repeated["y"].times + torch.arange(COPIES * NUM).unsqueeze(-1)
    more = parameters("cl", "v")
    once = nlme.one_compartment(times, repeated.doses, **more)
    each = nlme.one_compartment(times, Doses(**repeated.doses.columns), **more)
    assert torch.equal(once, each)


def test_occasions_and_carried_values_of_copies():
    labels = Series(
        torch.tensor([[0.0, 2.0], [0.0, 4.0], [0.0, 1.5]]).double(),
        torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 3.0]]).double(),
    )
    series = Series(TIMES, torch.ones_like(TIMES))
    cohort = Cohort({"y": series}, time_varying={"OCC": labels})
    once = nlme.occasions(cohort.time_varying["OCC"], series.times)
    repeated = cohort.repeat(COPIES)
    record, times = repeated.time_varying["OCC"], repeated["y"].times
    several = nlme.occasions(record, times)
    assert several.number == once.number == 2
    assert torch.equal(several.index, once.index.repeat(COPIES, 1))
    assert torch.equal(several.changes, once.changes.repeat(COPIES, 1))
    assert torch.equal(record.at(times), labels.at(TIMES).repeat(COPIES, 1))
    shifted = times + torch.arange(COPIES * NUM).unsqueeze(-1)
    expected = Series(record.times, record.values).at(shifted)
    assert torch.equal(record.at(shifted), expected)
