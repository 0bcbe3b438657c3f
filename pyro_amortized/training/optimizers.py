r"""Optimizers of the networks, a step of training, and the running average of the weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..numerics.muon_optimizer import Muon
from .options import TrainingOptions

# Rows and columns from which on a matrix is trained by Muon; orthogonalising a thinner one changes
# little, so Adam trains it (decision 020).
SMALLEST_MATRIX = 16
# A new weight enters the running average with this number over itself plus the steps so far: after
# many steps the average is about that of the last tenth of them, until the decay limits it.
FIRST_STEPS = 10.0


def make_optimizers(
    network: nn.Module, options: TrainingOptions
) -> dict[str, torch.optim.Optimizer]:
    """Muon for matrices, Adam for all other weights; an optimizer without weights is left out."""
    weights = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in weights if p.dim() >= 2 and min(p.shape[-2:]) >= SMALLEST_MATRIX]
    others = [p for p in weights if all(p is not m for m in matrices)]
    rate = options.peak_rate
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if matrices:
        optimizers["muon"] = Muon(matrices, lr=rate, weight_decay=options.weight_decay or 0.0)
    if others:
        optimizers["adam"] = torch.optim.Adam(others, lr=rate, fused=True)
    return optimizers


def set_rate(optimizers: dict[str, torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate and delete the gradients."""
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = rate


def take_step(
    optimizers: dict[str, torch.optim.Optimizer],
    network: nn.Module,
    averaged: AveragedModel,
    max_gradient: float,
) -> bool:
    r"""Clip the gradients, take a step, and update the average of the weights.

    Args:
        optimizers: From :func:`make_optimizers`.
        network: The network, with gradients.
        averaged: The average of its weights.
        max_gradient: Norm at which the gradients are clipped.

    Returns:
        Whether the step was taken; it is not where a gradient is not finite.
    """
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_gradient)
    if not bool(norm.isfinite()):
        return False
    for optimizer in optimizers.values():
        optimizer.step()
    averaged.update_parameters(network)
    return True


def average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """An exponential average of weights for torch's ``AveragedModel``. Its memory grows with the
    number of steps up to ``1 / (1 - decay)`` steps, so that the first weights lose their influence.
    """

    def update(averaged: Any, current: Any, num_averaged: Tensor | int) -> None:
        weight = max(1 - decay, FIRST_STEPS / (FIRST_STEPS + float(num_averaged)))
        torch._foreach_lerp_(averaged, current, weight)

    return update
