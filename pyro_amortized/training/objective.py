r"""The objective of training: the mean of :math:`-\log q(u \mid y, c, m, S)` over pairs.

Its expectation over simulations is smallest where q is the posterior under the distribution
:math:`\mathcal N(m, S S^\top)` that each individual was drawn from. Where the networks also learn
the shared parameters, :math:`-\log q(c \mid y)` is added.
"""

import torch
from torch import Tensor, nn

from ..guide.amortized_posterior import AmortizedPosterior
from .batches import Pairs


class Loss(nn.Module):
    r"""Mean of :math:`-\log q` over pairs.

    Args:
        posterior: The networks.
        autocast: Precision of the summary network, or None for that of its weights.
    """

    def __init__(self, posterior: AmortizedPosterior, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.posterior, self.autocast = posterior, autocast

    def forward(self, pairs: Pairs) -> Tensor:
        """Mean over the pairs, in nats."""
        return -log_q(self.posterior, pairs, self.autocast).mean()


def log_q(
    posterior: AmortizedPosterior, pairs: Pairs, autocast: torch.dtype | None = None
) -> Tensor:
    """Log density of each pair's parameters given its data, shape ``(pair,)``.

    The summary network may run in half precision. The flow never does, because differences of its
    log densities are small.
    """
    kind = pairs.unconstrained.device.type
    with torch.autocast(kind, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        summary = posterior.summarize_encoded(pairs.encoded)
    summary = summary.to(posterior.dtype)
    distribution = posterior.given(summary, pairs.shared, pairs.priors)
    log_individual = distribution.log_prob(pairs.unconstrained)
    if posterior.shared_flow is None:
        return log_individual
    shared = pairs.shared.to(posterior.dtype)
    return log_individual + posterior.shared_given(summary).log_prob(shared)
