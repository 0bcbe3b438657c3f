"""Densities of the observations: that of the program, or one that stands in for it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..cohort import Cohort
from .population_parameters import Population

Estimator = Literal["corrected", "likelihood-free"]


class IndividualLogDensity(NamedTuple):
    r"""Log densities per draw and individual, shape ``(draw, individual)``.

    ``observation`` is log p(y | phi, c); ``individual`` is log p(phi | Psi) in unconstrained
    coordinates.
    """

    observation: Tensor
    individual: Tensor

    @property
    def total(self) -> Tensor:
        """Log p(y, phi | Psi, c)."""
        return self.observation + self.individual

    @classmethod
    def joined(cls, parts: Sequence["IndividualLogDensity"]) -> "IndividualLogDensity":
        """Those of several sets of draws, one after the other."""
        return cls(*(torch.cat(x) for x in zip(*parts, strict=True)))


class ObservationDensity(Protocol):
    """A density of the observations in place of the program's own."""

    def log_prob(self, repeated: Cohort, draws: Tensor, population: Population) -> Tensor:
        r"""Log p(y | phi, c), up to a constant for each individual.

        Args:
            repeated: The cohort, repeated once per draw.
            draws: Individual parameters, unconstrained, shape ``(draw, individual, latent)``.
            population: Values of the population sites.

        Returns:
            Shape ``(draw, individual)``.
        """
        ...
