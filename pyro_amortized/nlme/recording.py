r"""Laws for what is recorded, and for data that can be simulated but have no density.

A value y that is recorded with probability r(y) contributes r(y) p(y) to the likelihood; one that
is not contributes the share of values that would not have been recorded,

.. math:: \int (1 - r(y))\, p(y \mid \phi)\, \mathrm dy .
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ..errors import ModelError

NUM_NODES = 40


def recording_probability(
    rule: Callable[[Tensor], Tensor], law: dist.Normal, value: Tensor, observed: Tensor
) -> Tensor:
    r"""Probability that a value is recorded: r(y) where y is known, its mean over y where not.

    For the site ``<name>_recorded`` of a model in which recording depends on the value itself::

        y = cohort["y"]
        law = dist.Normal(prediction, sigma)
        value = pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)
        p = nlme.recording_probability(lambda v: torch.sigmoid(2 - 3 * v), law, value, y.observed)
        pyro.sample("y_recorded", dist.Bernoulli(p).to_event(1), obs=cohort["y_recorded"].values)

    Args:
        rule: The function r, elementwise, from values to probabilities; it is called with values
            of one more leading dimension too.
        law: The normal law of the values, before masking.
        value: What ``pyro.sample`` returned, broadcastable to the law.
        observed: True where the value is known.

    Returns:
        Shape of the law. The mean is by Gauss-Hermite quadrature of 40 nodes.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    loc, scale = torch.broadcast_tensors(law.loc, law.scale)
    shape = (-1, *[1] * loc.dim())
    x = torch.as_tensor(nodes, dtype=loc.dtype, device=loc.device).reshape(shape)
    w = torch.as_tensor(weights / weights.sum(), dtype=loc.dtype, device=loc.device).reshape(shape)
    mean = (w * rule(loc + scale * x)).sum(0)
    known = rule(torch.where(observed, value, loc.detach()))
    return torch.where(observed, known, mean).clamp(1e-300, 1.0)


class Simulated(TorchDistribution):  # type: ignore[misc]
    r"""The distribution of something that can be simulated, but whose density nobody knows.

    A model that observes such a site is trained as any other; its guide gives the *uncorrected*
    amortized posterior. Whatever needs the density refuses: the library's corrected estimators, and
    MCMC, SVI and importance sampling by Pyro, in which the data would have no effect.

    Args:
        simulate: Draws one value; called without arguments, uses torch's global generator.
        batch_shape: Shape of what it draws.

    Example:
        >>> rate = torch.tensor([[2.0], [8.0]])
        >>> law = Simulated(lambda: torch.poisson(rate.expand(2, 3)), (2, 3)).to_event(1)
        >>> law.sample().shape
        torch.Size([2, 3])
    """

    has_density = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch's own form)
    support = constraints.real

    def __init__(self, simulate: Callable[[], Tensor], batch_shape: tuple[int, ...]) -> None:
        self.simulate = simulate
        super().__init__(torch.Size(batch_shape), torch.Size(), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One draw, or as many as asked for."""
        if not sample_shape:
            return self.simulate()
        draws = [self.simulate() for _ in range(torch.Size(sample_shape).numel())]
        return torch.stack(draws).reshape(*sample_shape, *self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Refuse. The library looks at ``has_density`` before it asks.

        Raises:
            ModelError: Always; a number in its place would let the data have no effect.
        """
        raise ModelError(
            "A density was asked of `nlme.Simulated`, which can be simulated but has no density.",
            "a method that needs simulations only: MCMC, SVI and importance sampling need the "
            "density.",
            "train a guide, `guide = train(model, cohort)`, and use it likelihood-free: "
            "`fit_population(model, guide, cohort)`, `sample_individuals(guide, cohort)`; or write "
            "a distribution with a density.",
        )

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Simulated":
        """The same law; it cannot be expanded beyond its shape."""
        assert torch.Size(batch_shape) == self.batch_shape
        return self
