r"""Training by several processes, each on its share of every batch.

The processes are those of the process group that the caller initialised with torch (as scripts
under ``torchrun`` do). Without a process group this process trains alone.
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def is_distributed() -> bool:
    """Whether the caller initialised a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process among those that train together; 0 if it trains alone."""
    return dist.get_rank() if is_distributed() else 0


def num_ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


def with_averaged_gradients(loss: nn.Module) -> nn.Module:
    """The loss, with gradients that are averaged over all processes."""
    if not is_distributed():
        return loss
    device = next(loss.parameters()).device
    return DistributedDataParallel(loss, device_ids=[device] if device.type == "cuda" else None)


def mean_over_ranks(value: float) -> float:
    """Mean of a number over all processes."""
    if not is_distributed():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def local_device(device: str) -> torch.device:
    """The device of this process: ``"cuda"`` means the GPU of its local rank."""
    if device == "cuda" and is_distributed():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(device)
