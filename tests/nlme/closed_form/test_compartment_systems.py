"""Transitions of linear compartments against the exponential of their matrix."""

import pytest
import torch

from pyro_amortized.nlme.closed_form.compartment_systems import CompartmentSystem

VALUES = {"cl": 3.0, "v": 20.0, "q": 5.0, "v2": 60.0, "q3": 2.0, "v3": 300.0}


def matrix(values, with_depot):
    """The matrix of the amounts: depot, central, peripheral compartments."""
    names = [(q, v) for q, v in (("q", "v2"), ("q3", "v3")) if q in values]
    c = int(with_depot)
    a = torch.zeros(c + 1 + len(names), c + 1 + len(names), dtype=torch.float64)
    a[c, c] = -values["cl"] / values["v"]
    for j, (q, volume) in enumerate(names, c + 1):
        a[c, c] -= values[q] / values["v"]
        a[j, c], a[c, j] = values[q] / values["v"], values[q] / values[volume]
        a[j, j] = -a[c, j]
    if with_depot:
        a[0, 0], a[c, 0] = -values["ka"], values["ka"]
    return a


@pytest.mark.parametrize("ka", [None, 0.7, 0.15])  # .15 is CL / V
@pytest.mark.parametrize("num_values", [2, 4, 6])
def test_transitions_are_the_exponential_and_its_integral(num_values, ka):
    generator, own = torch.Generator().manual_seed(num_values), []
    names = list(VALUES)[:num_values]
    for _ in range(6):  # three individuals on two occasions
        scale = (0.4 * torch.randn(num_values, generator=generator)).exp().tolist()
        own.append({n: VALUES[n] * s for n, s in zip(names, scale, strict=True)})
        if ka is not None:
            own[-1]["ka"] = own[-1]["cl"] / own[-1]["v"] if ka == 0.15 else ka
    parameters = {
        n: torch.tensor([x[n] for x in own], dtype=torch.float64).view(3, 2) for n in own[0]
    }
    system = CompartmentSystem(parameters)
    gaps = torch.tensor([[0.0, 0.01, 3.0, 200.0]], dtype=torch.float64).expand(3, -1)
    occasion = torch.tensor([[0, 0, 1, 1]]).expand(3, -1)
    exponential, integral = system.transition(gaps, occasion)
    size = system.num_states
    for i in range(3):
        for m in range(4):
            a = matrix(own[2 * i + int(occasion[i, m])], ka is not None)
            block = torch.zeros(2 * size, 2 * size, dtype=torch.float64)
            block[:size, :size], block[:size, size:] = a, torch.eye(size)
            exact = torch.matrix_exp(block * gaps[i, m])
            for row in range(size):
                for column in range(size):
                    values = [x.get((row, column)) for x in (exponential, integral)]
                    for value, shift in zip(values, (0, size), strict=True):
                        expected = float(exact[row, shift + column])
                        found = 0.0 if value is None else float(value[i, m])
                        assert found == pytest.approx(expected, rel=1e-9, abs=1e-11)
