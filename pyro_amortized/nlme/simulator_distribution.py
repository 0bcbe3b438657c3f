r"""A distribution of data that can be simulated but have no density.

A site of this distribution makes a model likelihood-free: data are simulated from it to train a
guide, and nothing asks for the density of the observations.
"""

from collections.abc import Callable, Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ..errors import ModelError


class Simulated(TorchDistribution):  # type: ignore[misc]
    r"""Distribution of data that can be simulated, but whose density is not known.

    A model that observes such a site is trained as any other model. Its guide gives the
    *uncorrected* amortized posterior. Methods that need the density raise an error: the corrected
    estimators of the library, and MCMC, SVI and importance sampling of Pyro, in which the data
    would otherwise have no effect.

    Args:
        simulate: Draws one value of shape ``batch_shape``. It is called without arguments and must
            use torch's global generator.
        batch_shape: Shape of one value.

    Example:
        >>> rate = torch.tensor([[2.0], [8.0]])
        >>> counts = Simulated(lambda: torch.poisson(rate.expand(2, 3)), (2, 3)).to_event(1)
        >>> counts.sample().shape
        torch.Size([2, 3])
    """

    has_density = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch's own form)
    support = constraints.real

    def __init__(self, simulate: Callable[[], Tensor], batch_shape: tuple[int, ...]) -> None:
        self.simulate = simulate
        super().__init__(torch.Size(batch_shape), torch.Size(), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, shape ``(*sample_shape, *batch_shape)``; one call of the simulator for each."""
        if not sample_shape:
            return self.simulate()
        draws = [self.simulate() for _ in range(torch.Size(sample_shape).numel())]
        return torch.stack(draws).reshape(*sample_shape, *self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Raise an error; the library reads ``has_density`` and does not call this.

        Raises:
            ModelError: Always. A number in its place would make the data have no effect.
        """
        raise ModelError(
            "A density was asked of `nlme.Simulated`, which can be simulated but has no density.",
            "a method that needs simulations only: MCMC, SVI and importance sampling need the "
            "density.",
            "train a guide, `guide = train(model, cohort)`, and use it likelihood-free: "
            "`fit_population(model, cohort, guide=guide)`; or write a distribution with a density.",
        )

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Simulated":
        """This distribution itself; it cannot be expanded beyond its shape."""
        assert torch.Size(batch_shape) == self.batch_shape
        return self
