"""The four problems of the benchmark of solvers: rates, times, doses and the right-hand side."""

import torch

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lognormal(num, mean, sd, seed):
    return mean * torch.exp(sd * torch.randn(num, generator=generator(seed), dtype=torch.float64))


class Conversion:
    """A <-> B, rates k1 and k2; eleven common times."""

    name, states, stiff = "conversion_reaction", 2, False

    def __init__(self, num):
        self.p = {"k1": lognormal(num, 0.5, 0.5, 1), "k2": lognormal(num, 0.5, 0.5, 2)}
        self.times = torch.linspace(0, 10, 11, dtype=torch.float64).expand(num, -1)
        self.initial, self.doses = torch.tensor([1.0, 0.0], dtype=torch.float64), None

    @staticmethod
    def f(t, x, p):
        flow = p["k1"] * x[:, 0] - p["k2"] * x[:, 1]
        return torch.stack([-flow, flow], -1)

    def closed(self):
        k1, k2 = self.p["k1"][:, None], self.p["k2"][:, None]
        b = k1 / (k1 + k2) * -torch.expm1(-(k1 + k2) * self.times)
        return torch.stack([1 - b, b], -1)


class Pharmacokinetics:
    """One compartment, oral; five doses and twenty observations at individual times."""

    name, states, stiff, observed = "pk", 2, False, 1

    def __init__(self, num):
        g = generator(3)
        self.p = {
            "ka": lognormal(num, 1.5, 0.5, 4),
            "cl": lognormal(num, 2.0, 0.3, 5),
            "v": lognormal(num, 20.0, 0.3, 6),
        }
        days = 24.0 * torch.arange(5, dtype=torch.float64)
        at = days + 2 * torch.rand(num, 5, generator=g, dtype=torch.float64)
        self.doses = Doses(at, 100 + 50 * torch.rand(num, 5, generator=g, dtype=torch.float64))
        self.times = (120 * torch.rand(num, 20, generator=g, dtype=torch.float64)).sort(1).values
        self.initial = torch.zeros(2, dtype=torch.float64)

    @staticmethod
    def f(t, x, p):
        absorbed = p["ka"] * x[:, 0]
        return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * x[:, 1]], -1)

    def closed(self):
        central = nlme.one_compartment(self.times, self.doses, **self.p) * self.p["v"][:, None]
        return central.unsqueeze(-1)


class FitzHughNagumo:
    """Excitable membrane; 21 common times, as in Radev et al. and van Boekel."""

    name, states, stiff = "fitzhugh_nagumo", 2, False

    def __init__(self, num):
        self.p = {
            "a": lognormal(num, 0.2, 0.3, 7),
            "b": lognormal(num, 0.2, 0.3, 8),
            "c": lognormal(num, 3.0, 0.2, 9),
        }
        self.times = torch.linspace(0, 20, 21, dtype=torch.float64).expand(num, -1)
        self.initial, self.doses = torch.tensor([-1.0, 1.0], dtype=torch.float64), None

    @staticmethod
    def f(t, x, p):
        v, w = x.unbind(-1)
        return torch.stack([p["c"] * (v - v**3 / 3 + w), -(v - p["a"] + p["b"] * w) / p["c"]], -1)


class Stiff:
    """Robertson's reaction feeding an enzyme that binds and releases its product; five states."""

    name, states, stiff = "stiff", 5, True

    def __init__(self, num):
        self.p = {
            "k1": lognormal(num, 0.04, 0.3, 10),
            "k2": lognormal(num, 3e4, 0.3, 11),
            "k3": lognormal(num, 1e2, 0.3, 12),
            "on": lognormal(num, 1e3, 0.3, 13),
            "off": lognormal(num, 10.0, 0.3, 14),
        }
        self.times = torch.linspace(1, 40, 10, dtype=torch.float64).expand(num, -1)
        self.initial = torch.tensor([1.0, 0.0, 0.0, 0.1, 0.0], dtype=torch.float64)
        self.doses = None

    @staticmethod
    def f(t, x, p):
        a, b, c, e, bound = x.unbind(-1)
        first, second, back = p["k1"] * a, p["k2"] * b * b, p["k3"] * b * c
        on, off = p["on"] * c * e, p["off"] * bound
        return torch.stack(
            [-first + back, first - back - second, second - on + off, off - on, on - off], -1
        )


PROBLEMS = (Conversion, Pharmacokinetics, FitzHughNagumo, Stiff)
