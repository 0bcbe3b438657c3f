"""Linear regression on weighted draws, of many individuals at once."""

import torch
from torch import Tensor

# Added to the covariance of the regressors, as a part of its diagonal: regressors that depend on
# each other linearly have coefficients then.
JITTER = 1e-9


def regression(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Coefficients of the regression of y on x and a constant.

    Args:
        x: Shape ``(draw, individual, regressor)``.
        y: Shape ``(draw, individual, target)``.
        weights: Normalised weights, shape ``(draw, individual)``.

    Returns:
        Shape ``(individual, regressor, target)``; NaN where there are none.
    """
    w = weights.unsqueeze(-1)
    x, y = x - (w * x).sum(0), y - (w * y).sum(0)
    squares = torch.einsum("kn,kni,knj->nij", weights, x, x)
    jitter = JITTER * squares.diagonal(dim1=1, dim2=2).clamp(min=1e-300)
    products = torch.einsum("kn,kni,knp->nip", weights, x, y)
    factor, info = torch.linalg.cholesky_ex(squares + jitter.diag_embed())
    solution = torch.cholesky_solve(products, factor)
    return torch.where((info == 0)[:, None, None], solution, torch.nan)
