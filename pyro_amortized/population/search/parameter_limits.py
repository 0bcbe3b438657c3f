r"""Parameters whose maximum lies at the limit of their support.

The unconstrained coordinate of such a parameter, for instance the logarithm of an additive error
that the data do not need, has no maximum: the likelihood approaches its supremum and is flat from
some point on. Unlike a parameter that the data do not determine, it is flat on one side only.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...model import ModelStructure
from ..likelihood.exact_likelihood import ExactLikelihood
from ..likelihood.likelihood_interface import Likelihood
from .maximum_search import Search


@dataclass(frozen=True)
class LimitSettings:
    """How a limit is recognised."""

    # Moves of the coordinate, in units of its scale, that are tried on both sides. The optimiser
    # may have gone far in a flat direction: to a logarithm of -63.
    moves: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
    # Fall of the log likelihood with which a side is no longer flat: that at the end of a
    # confidence interval of 95 %.
    min_fall: float = 1.92
    # A value this close to the limit of a positive parameter is printed as 0.
    rounding: float = 1e-4


LIMITS = LimitSettings()


class Limit(NamedTuple):
    """A parameter at the limit of its support: its label, the limit, which may be infinite, and the
    side of the values that fit as well (``"smaller"`` or ``"larger"``).
    """

    name: str
    value: float
    side: str

    def __str__(self) -> str:
        if math.isinf(self.value):
            return (
                f"{self.name} has no finite estimate, because {self.side} values have the same "
                "likelihood (a rate of zero, or a probability of zero or one): fix it, or use the "
                "prior (`maximum_a_posteriori=True`, `AmortizedMCMC`)"
            )
        return (
            f"{self.name} is at its limit {self.value:.3g}: {self.side} values have the same "
            "likelihood"
        )


def limit_of(search: Search, likelihood: Likelihood, vector: Tensor, place: int) -> Limit | None:
    r"""The limit that a parameter has reached in a flat direction; None if it is flat on both sides
    or on none.

    Args:
        search: The search.
        likelihood: The likelihood on draws at the estimates.
        vector: The estimates, unconstrained, shape ``(population,)``.
        place: The coordinate.
    """
    structure = search.structure
    exact = ExactLikelihood(*search.some_draws(likelihood))
    unit = torch.zeros_like(vector)
    unit[place] = search.scale[place]

    def value(move: float) -> float:
        population = structure.constrain_population(vector + move * unit)
        return float(exact(population).sum())

    with torch.no_grad():
        here = value(0.0)
        falls = [
            any(not here - value(sign * x) < LIMITS.min_fall for x in LIMITS.moves)
            for sign in (-1.0, 1.0)
        ]
    if falls[0] == falls[1]:
        return None
    sign = 1.0 if falls[0] else -1.0
    largest = LIMITS.moves[-1]
    end = _value_of(structure, vector + sign * largest * unit, place)
    before = _value_of(structure, vector + sign * (largest / 2) * unit, place)
    end = 0.0 if abs(end) < LIMITS.rounding else end
    if end == float(vector[place] + sign * largest * unit[place]):  # any real number
        end = math.copysign(math.inf, sign)
    return Limit(structure.population_names[place], end, "larger" if end > before else "smaller")


def _value_of(structure: ModelStructure, vector: Tensor, place: int) -> float:
    """The value, in its support, of the parameter with a given coordinate."""
    start = 0
    for name, site in structure.population.items():
        if place < start + site.num_unconstrained:
            values = structure.constrain_population(vector)[name].reshape(-1)
            return float(values[min(place - start, len(values) - 1)])
        start += site.num_unconstrained
    raise IndexError(place)
