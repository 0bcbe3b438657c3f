r"""Maxima of the likelihood of a fit with a level, for its profiles.

The draws of the individuals follow the parameters; the nodes of the quadrature over the effects of
the units are set anew until the maximum does not rise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics.maximization import Optimum, maximize
from ...runtime.random_numbers import make_generator
from .level_result import LevelFit


@dataclass(frozen=True)
class LevelProfileSettings:
    r"""How a maximum is found.

    Args:
        max_iterations: Iterations on the same nodes, which stay where they are.
        max_rounds: Most times that the nodes are set anew.
        gain: Gain in log likelihood of a round below which the maximum is found: a hundredth of
            what the limit of a profile needs moves a bound by a hundredth of a standard error.
    """

    max_iterations: int = 15
    max_rounds: int = 8
    gain: float = 0.01


SETTINGS = LevelProfileSettings()


class LevelMaxima:
    """Maxima of the likelihood of the units over some coordinates."""

    def __init__(self, fit: LevelFit) -> None:
        self.fit = fit
        errors = fit.covariance.diagonal().clamp(min=0).sqrt()
        scale = fit.structure.population_scale(fit.cohort, make_generator(0))
        self.scale = torch.where(errors.isnan(), scale, errors)

    def maximum(self, start: Tensor, free: Tensor) -> Optimum:
        """The maximum over some coordinates, from a vector of all."""
        for _ in range(SETTINGS.max_rounds):
            optimum, gain = self._round(start, free)
            start = optimum.vector
            if gain < SETTINGS.gain:
                break
        return optimum

    def _round(self, start: Tensor, free: Tensor) -> tuple[Optimum, float]:
        """The maximum on nodes about the effects at a vector, and what it has gained."""
        target = self.fit.likelihood.recentered(start)
        places = free.nonzero()[:, 0]

        def objective(x: Tensor) -> Tensor:
            return target(start.index_put((places,), x))

        with torch.no_grad():
            before = float(objective(start[free]))
        if not len(places):
            return Optimum(start, before, True, ""), 0.0
        optimum = maximize(
            objective, start[free], scale=self.scale[free], max_iterations=SETTINGS.max_iterations
        )
        vector = start.index_put((places,), optimum.vector)
        vector = vector.index_put((target.level.places.flatten(),), target.center.flatten())
        return optimum._replace(vector=vector.detach()), optimum.value - before
