r"""One triangular layer of a flow, made of rational-quadratic splines."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .rational_quadratic_spline import inverse_spline, num_parameters, spline


class SplineLayer(nn.Module):
    r"""One triangular layer: every dimension is transformed by a spline whose parameters depend on
    the context and on the dimensions before it.

    .. math:: \epsilon_j = S(z_j;\; W_j\, \text{silu}(C_j h + Z_j z_{<j}) + b_j)

    Args:
        num_latent: Number of dimensions.
        num_hidden: Length of the hidden context h.
        width: Number of hidden units per dimension.
        num_bins: Number of bins of a spline.
        reverse: Whether the order of the dimensions is from the last to the first.
    """

    def __init__(
        self, num_latent: int, num_hidden: int, width: int, num_bins: int, reverse: bool
    ) -> None:
        super().__init__()
        self.num_latent, self.width = num_latent, width
        self.order = list(range(num_latent))[:: -1 if reverse else 1]
        rank = torch.tensor([self.order.index(j) for j in range(num_latent)])
        before = rank.unsqueeze(0) < rank.unsqueeze(1)
        self.before: Tensor
        self.register_buffer("before", before.float().repeat_interleave(width, 0), persistent=False)
        self.context = nn.Linear(num_hidden, num_latent * width)
        self.given = nn.Linear(num_latent, num_latent * width, bias=False)
        self.weight = nn.Parameter(torch.zeros(num_latent, width, num_parameters(num_bins)))
        self.bias = nn.Parameter(torch.zeros(num_latent, 1, num_parameters(num_bins)))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        r"""Transform towards the base distribution.

        Args:
            z: Shape ``(*lead, num_latent)``.
            context: ``self.context(h)``, broadcastable to ``(*lead, num_latent * width)``.

        Returns:
            The transformed values, shape of ``z``, and the log absolute determinant of the
            Jacobian, shape ``(*lead,)``.
        """
        hidden = functional.silu(functional.linear(z, self.given.weight * self.before) + context)
        hidden = hidden.reshape(hidden.shape[:-1].numel(), self.num_latent, self.width)
        raw = torch.baddbmm(self.bias, hidden.transpose(0, 1), self.weight).transpose(0, 1)
        y, log_slope = spline(z, raw.reshape(*z.shape, raw.shape[-1]))
        return y, log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`forward`, computed one dimension after the other, and the log
        absolute determinant of the Jacobian of :meth:`forward` at the result.
        """
        columns: dict[int, Tensor] = {}
        weights = self.given.weight.unflatten(0, (self.num_latent, self.width))
        parts = context.unflatten(-1, (self.num_latent, self.width))
        total = y.new_zeros(y.shape[:-1])
        for place, j in enumerate(self.order):
            before = self.order[:place]
            hidden = parts[..., j, :]
            if before:
                z = torch.stack([columns[k] for k in before], -1)
                hidden = hidden + functional.linear(z, weights[j][:, before])
            raw = functional.silu(hidden) @ self.weight[j] + self.bias[j, 0]
            columns[j], log_slope = inverse_spline(y[..., j], raw)
            total = total + log_slope
        return torch.stack([columns[j] for j in range(self.num_latent)], -1), total
