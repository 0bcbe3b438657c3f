r"""Amounts in linear compartments after a while, by the rate constants of the system.

The amounts in a central compartment and its peripheral ones follow :math:`\dot x = A x`, where A
has the eigenvalues :math:`-\lambda_i`. With Sylvester's formula

.. math:: e^{A t} = \sum_i P_i\, e^{-\lambda_i t}, \qquad
          P_i = \prod_{j \ne i} \frac{A + \lambda_j I}{\lambda_j - \lambda_i} ,

and a depot that empties into the central compartment at the rate :math:`k_a` adds

.. math:: \int_0^t e^{A (t - s)} k_a e^{-k_a s}\, \mathrm ds\; e_c
          = \sum_i P_i e_c\, k_a \frac{e^{-\lambda_i t} - e^{-k_a t}}{k_a - \lambda_i} .

The matrices :math:`P_i` belong to an individual and an occasion, not to a time: with two
compartments this takes a tenth of the time of ``torch.matrix_exp``.

References:
    Higham (2008), Functions of Matrices, section 1.2; Bertrand and Mentré (2008).
"""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.broadcasting import gathered
from .rate_constants import RATES, cubic_roots

SMALL = 1e-8  # below it (1 - exp(-x)) / x is 1 - x / 2 to the precision of double numbers

Matrix = dict[tuple[int, int], Tensor]


class _Mode(NamedTuple):
    """A rate and the entries of its matrix P, shape ``(*, individual, occasion)`` each."""

    rate: Tensor
    entries: Matrix


class CompartmentSystem:
    """The compartments of every individual on every occasion.

    Args:
        parameters: ``cl`` and ``v``, for further compartments ``q``, ``v2``, ``q3``, ``v3``, and
            ``ka`` where there is a depot, shape ``(*, individual, occasion)`` each.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self.parameters = parameters
        self.central = 1 if "ka" in parameters else 0
        self.num_peripheral = (len(parameters) - self.central - 2) // 2
        self.num_states = self.central + 1 + self.num_peripheral

    def at(self, name: str, occasion: Tensor) -> Tensor:
        """A parameter on the occasions of an index ``(*, individual, point)``."""
        return gathered(self.parameters[name], occasion)

    def transition(
        self, gaps: Tensor, occasion: Tensor, with_integral: bool = True
    ) -> tuple[Matrix, Matrix]:
        r"""Entries of :math:`e^{A t}` and of its integral over gaps, shape ``(*, individual,
        point)`` each; those that are zero are left out, and the integral if it is not wanted.
        """
        exponential: Matrix = {}
        integral: Matrix = {}
        c, waits, ka = self.central, gaps, gaps
        if c:
            ka = self.at("ka", occasion)
            waits = torch.exp(-ka * gaps)
            exponential[0, 0] = waits
            if with_integral:
                integral[0, 0] = -torch.expm1(-ka * gaps) / ka
        for mode in self._modes:
            rate = gathered(mode.rate, occasion)
            entries = {place: gathered(x, occasion) for place, x in mode.entries.items()}
            _add(exponential, entries, torch.exp(-rate * gaps))
            if with_integral:
                _add(integral, entries, -torch.expm1(-rate * gaps) / rate)
            if c:
                from_depot = {(i, 0): x for (i, j), x in entries.items() if j == c}
                slow, difference = torch.minimum(ka, rate), (ka - rate).abs()
                passed = ka * gaps * torch.exp(-slow * gaps) * _share(difference * gaps)
                _add(exponential, from_depot, passed)
                if with_integral:
                    _add(integral, from_depot, (1 - waits - passed) / rate)
        return exponential, integral

    @cached_property
    def _modes(self) -> list[_Mode]:
        c, p = self.central, self.parameters
        eliminated = p["cl"] / p["v"]
        if not self.num_peripheral:
            return [_Mode(eliminated, {(c, c): torch.ones_like(eliminated)})]
        names = (("q", "v2"), ("q3", "v3"))[: self.num_peripheral]
        out = [p[q] / p["v"] for q, _ in names]
        back = [p[q] / p[volume] for q, volume in names]
        rates = _rates(eliminated, out, back)
        cells = [[torch.zeros_like(eliminated)] * (1 + len(out)) for _ in range(1 + len(out))]
        cells[0][0] = -eliminated - sum(out)
        for j, (away, home) in enumerate(zip(out, back, strict=True), 1):
            cells[j][0], cells[0][j], cells[j][j] = away, home, -home
        matrix = torch.stack([torch.stack(row, -1) for row in cells], -2)
        identity = torch.eye(len(rates), dtype=matrix.dtype)
        modes = []
        for i, rate in enumerate(rates):
            projector = identity
            for j, other in enumerate(rates):
                if j != i:
                    shifted = matrix + other[..., None, None] * identity
                    projector = projector @ (shifted / (other - rate)[..., None, None])
            places = [(a, b) for a in range(len(rates)) for b in range(len(rates))]
            modes.append(_Mode(rate, {(c + a, c + b): projector[..., a, b] for a, b in places}))
        return modes


def _rates(eliminated: Tensor, out: list[Tensor], back: list[Tensor]) -> list[Tensor]:
    """The rate constants of two or three compartments."""
    if len(out) == 1:
        total = eliminated + out[0] + back[0]
        product = eliminated * back[0]
        gap = (total.square() - 4 * product).clamp(min=RATES.smallest).sqrt()
        fast = (total + gap) / 2
        return [fast, (product / fast).clamp(min=RATES.smallest)]
    (k12, k13), (k21, k31) = out, back
    linear = eliminated * (k31 + k21) + k21 * k31 + k21 * k13 + k31 * k12
    return cubic_roots(eliminated + k12 + k13 + k21 + k31, linear, eliminated * k21 * k31)


def _add(matrix: Matrix, entries: Matrix, factor: Tensor) -> None:
    """Add entries times a factor to those of a matrix that is being made."""
    for place, x in entries.items():
        matrix[place] = x * factor + matrix[place] if place in matrix else x * factor


def _share(x: Tensor) -> Tensor:
    """(1 - exp(-x)) / x, also at zero."""
    safe = torch.where(x < SMALL, torch.ones_like(x), x)
    return torch.where(x < SMALL, 1 - x / 2, -torch.expm1(-safe) / safe)
