"""Doses, parameters and right-hand sides that several tests of this package share."""

import torch

from pyro_amortized import Doses

ONE = torch.ones(1, dtype=torch.float64)
TIMES = torch.tensor([[0.0, 0.5, 1.0, 2.0]], dtype=torch.float64)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def decay(t, x, p):
    return -p["k"].unsqueeze(-1) * x


def depot(t, x, p):
    absorbed = p["ka"] * x[:, 0]
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * x[:, 1]], -1)


def parameters():
    return {"ka": 1.5 * ONE, "cl": 1.1 * ONE, "v": 20.0 * ONE}


def random_doses(generator, num, steady):
    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    times = (60 * uniform(num, 5)).sort(1).values
    infused = uniform(num, 5) < 0.4
    states = torch.where(uniform(num, 5) < 0.3, 1 + (uniform(num, 5) < 0.5).long(), 0) * steady
    return Doses(
        times,
        10 + 90 * uniform(num, 5),
        torch.where(infused, 0.5 + 9 * uniform(num, 5), 0.0),
        1 + (uniform(num, 5) < 0.5).long(),
        uniform(num, 5) < 0.9,
        intervals=torch.where(states > 0, 4 + 8 * uniform(num, 5), 0.0),
        steady_state=states,
        reset=uniform(num, 5) < 0.1,
    )


def four_doses(num=4, seed=0):
    """Boluses into depot and central, an infusion into central, padding."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.tensor([[0.0, 5.0, 9.0, 12.0]]).repeat(num, 1).double()
    times += torch.rand(num, 4, generator=generator).double()
    amounts = 50 + 50 * torch.rand(num, 4, generator=generator).double()
    durations = torch.tensor([[0.0, 0.0, 2.0, 0.0]]).repeat(num, 1).double()
    compartment = torch.tensor([[1, 2, 2, 1]]).repeat(num, 1)
    given = torch.tensor([[True, True, True, True]]).repeat(num, 1)
    given[0, 3] = False
    return Doses(times, amounts, durations, compartment, given)


def random_parameters(num=4, draws=()):
    generator = torch.Generator().manual_seed(1)
    shape = (*draws, num)
    ka = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    cl = 2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return {"ka": ka, "cl": cl, "v": 10 + 5 * torch.rand(shape, generator=generator).double()}


def observation_times(num=4):
    base = torch.linspace(0.1, 24, 15, dtype=torch.float64)
    return base * (1 + 0.01 * torch.arange(num).double().unsqueeze(-1))
