r"""The objective, the mean of :math:`-\log q(u \mid y, c)` over pairs, and how processes share
it.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..guide.amortized_posterior import AmortizedPosterior
from .batches import Pairs


class Loss(nn.Module):
    r"""Mean of :math:`-\log q` over pairs."""

    def __init__(self, posterior: AmortizedPosterior, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.posterior, self.autocast = posterior, autocast

    def forward(self, pairs: Pairs) -> Tensor:
        """Mean over the pairs, nats."""
        return -log_q(self.posterior, pairs, self.autocast).mean()


def log_q(
    posterior: AmortizedPosterior, pairs: Pairs, autocast: torch.dtype | None = None
) -> Tensor:
    """Log density of each pair's parameters given its data, shape ``(pair,)``.

    The summary network may run in half precision; the flow, whose densities need their digits,
    never does.
    """
    kind = pairs.unconstrained.device.type
    with torch.autocast(kind, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        summary = posterior.summarize_encoded(pairs.encoded)
    summary = summary.to(posterior.dtype)
    found = posterior.given(summary, pairs.shared).log_prob(pairs.unconstrained)
    if posterior.shared_flow is None:
        return found
    shared = pairs.shared.to(posterior.dtype)
    return found + posterior.shared_given(summary).log_prob(shared)


def rank() -> int:
    """Number of this process among those that train together, 0 alone."""
    return dist.get_rank() if is_shared() else 0


def num_ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_shared() else 1


def is_shared() -> bool:
    """Whether the caller initialised a process group of torch (as ``torchrun`` scripts do)."""
    return dist.is_available() and dist.is_initialized()


def shared_loss(loss: Loss) -> nn.Module:
    """The loss whose gradients are averaged over all processes."""
    if not is_shared():
        return loss
    device = next(loss.parameters()).device
    return DistributedDataParallel(loss, device_ids=[device] if device.type == "cuda" else None)


def mean_over_ranks(value: float) -> float:
    """Mean of a number over all processes."""
    if not is_shared():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def local_device(device: str) -> torch.device:
    """The device of this process: ``"cuda"`` means the GPU of its local rank."""
    if device == "cuda" and is_shared():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(device)
