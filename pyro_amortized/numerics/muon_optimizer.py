r"""The Muon optimizer for the weight matrices of networks.

Muon replaces the momentum of a weight matrix by the nearest orthogonal matrix, so that all its
directions change equally; five Newton-Schulz steps find it. On the amortized posteriors of this
library it halves the remaining error in the same time (decision 020 in ``docs/decisions``).
``torch.optim.Muon`` does these steps in bfloat16, for which processors without native bfloat16 take
20 times longer (measured: 14 ms against 0.7 ms for a matrix of 128 x 128); here they are done in
float32, and matrices of equal shape together.

References:
    Jordan et al. (2024), Muon: an optimizer for hidden layers in neural networks; the scale
    0.2 sqrt(max(n, m)), which lets Muon and Adam share one learning rate: Liu et al. (2025),
    Muon is scalable for LLM training.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """Nearly the nearest orthogonal matrix, shape ``(*batch, n, m)``: singular values near 1.

    Example:
        >>> x = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(1))
        >>> values = torch.linalg.svdvals(orthogonalize(x))
        >>> bool((values > 0.6).all() and (values < 1.3).all())
        True
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.transpose(-1, -2) if tall else matrices
    x = x / (x.norm(dim=(-1, -2), keepdim=True) + 1e-7)
    batch, single = x.shape[:-2], x.numel() == x.shape[-1] * x.shape[-2]
    x = x.reshape(x.shape[-2:]) if single else x.flatten(0, -3)
    multiply_add = torch.addmm if single else torch.baddbmm
    for _ in range(num_steps):
        gram = x @ x.transpose(-1, -2)
        update = multiply_add(gram, gram, gram, beta=b, alpha=c)
        x = multiply_add(x, update, x, beta=a)
    x = x.reshape(*batch, *x.shape[-2:])
    return x.transpose(-1, -2) if tall else x


class Muon(torch.optim.Optimizer):
    r"""Muon for weights of two or more dimensions.

    Args:
        weights: Parameters, shape ``(*batch, n, m)``.
        lr: Learning rate; an update has the size of one of Adam.
        momentum: Decay of the (Nesterov) momentum.
        weight_decay: Decoupled decay per unit of learning rate.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(weights, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all weights that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                direction = weight.grad.lerp(state["momentum"], group["momentum"])
                by_shape.setdefault(weight.shape[-2:], []).append((weight, direction))
            for shape, pairs in by_shape.items():
                self._update(shape, pairs, group)

    @staticmethod
    def _update(
        shape: torch.Size, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]
    ) -> None:
        stacked = torch.cat([direction.reshape(-1, *shape) for _, direction in pairs])
        update = orthogonalize(stacked) * (0.2 * math.sqrt(max(shape)))
        parts = update.split([direction.numel() // shape.numel() for _, direction in pairs])
        for (weight, _), part in zip(pairs, parts, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(part.reshape(weight.shape), alpha=group["lr"])
