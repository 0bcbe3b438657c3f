r"""Probability that a value is recorded, where recording depends on the value itself.

A value y that is recorded with probability r(y) contributes r(y) p(y) to the likelihood. A value
that is not recorded contributes the probability of not being recorded,

.. math:: \int (1 - r(y))\, p(y \mid \phi)\, \mathrm dy .

The integral is computed by Gauss-Hermite quadrature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor


@dataclass(frozen=True)
class QuadratureSettings:
    r"""How the mean of the probability of recording is computed.

    Args:
        num_nodes: Nodes of the quadrature. With 40 the result is exact for a function r that is a
            polynomial of degree 79.
        min_probability: Smallest probability; its logarithm is finite in double precision.
    """

    num_nodes: int = 40
    min_probability: float = 1e-300


DEFAULTS = QuadratureSettings()


def recording_probability(
    rule: Callable[[Tensor], Tensor], distribution: dist.Normal, value: Tensor, observed: Tensor
) -> Tensor:
    r"""Probability that a value is recorded: r(y) where y is known, and its mean over y elsewhere.

    Use it for the site ``<name>_recorded`` of a model in which recording depends on the value::

        y = cohort["y"]
        normal = dist.Normal(prediction, sigma)
        value = pyro.sample("y", normal.mask(y.observed).to_event(1), obs=y.values)
        rule = lambda v: torch.sigmoid(2 - 3 * v)
        p = nlme.recording_probability(rule, normal, value, y.observed)
        pyro.sample("y_recorded", dist.Bernoulli(p).to_event(1), obs=cohort["y_recorded"].values)

    Args:
        rule: The function r, elementwise, from values to probabilities. It is also called with
            values that have one more leading dimension.
        distribution: The normal distribution of the values, without the mask. Batch shape
            ``(*, individual, time)``.
        value: What ``pyro.sample`` returned, broadcastable to the batch shape.
        observed: True where the value is known, broadcastable to the batch shape.

    Returns:
        Probabilities, shape ``(*, individual, time)``. The mean is by Gauss-Hermite quadrature of
        40 nodes.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(DEFAULTS.num_nodes)
    loc, scale = torch.broadcast_tensors(distribution.loc, distribution.scale)
    shape = (-1, *[1] * loc.dim())
    x = torch.as_tensor(nodes, dtype=loc.dtype, device=loc.device).reshape(shape)
    w = torch.as_tensor(weights / weights.sum(), dtype=loc.dtype, device=loc.device).reshape(shape)
    mean = (w * rule(loc + scale * x)).sum(0)
    known = rule(torch.where(observed, value, loc.detach()))
    return torch.where(observed, known, mean).clamp(DEFAULTS.min_probability, 1.0)
