r"""Linear regression on weighted draws, of many individuals at once.

Without a draw k the coefficients would be others,

.. math:: \beta^{(-k)} = \beta - w_k\, e_k\, d_k, \qquad
          d_k = \frac{A^{-1} (x_k - \bar x)}{1 - h_k}, \qquad
          A = \sum_k w_k (x_k - \bar x)(x_k - \bar x)^\top ,

with the residual :math:`e_k` and the leverage :math:`h_k` of the draw.

References:
    Cook and Weisberg (1982), Residuals and Influence in Regression.
"""

import torch
from torch import Tensor

# Added to the covariance of the regressors, as a part of its diagonal: regressors that depend on
# each other linearly have coefficients then.
JITTER = 1e-9
# Largest leverage of a draw. Without a draw that gives most of the weight there is no regression.
MAX_LEVERAGE = 0.5


def regression(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Coefficients of the regression of y on x and a constant.

    Args:
        x: Shape ``(draw, individual, regressor)``.
        y: Shape ``(draw, individual, target)``.
        weights: Normalised weights, shape ``(draw, individual)``.

    Returns:
        Shape ``(individual, regressor, target)``; NaN where there are none.
    """
    y = y - (weights.unsqueeze(-1) * y).sum(0)
    x, factor, exists = _factored_squares(x, weights)
    products = torch.einsum("kn,kni,knp->nip", weights, x, y)
    solution = torch.cholesky_solve(products, factor)
    return torch.where(exists[:, None, None], solution, torch.nan)


def influences(x: Tensor, weights: Tensor) -> Tensor:
    r"""What every draw changes in the coefficients of a regression, d_k.

    Args:
        x: Shape ``(draw, individual, regressor)``.
        weights: Normalised weights, shape ``(draw, individual)``.

    Returns:
        The shape of x; NaN where there is no regression.
    """
    x, factor, exists = _factored_squares(x, weights)
    solved = torch.cholesky_solve(x.permute(1, 2, 0), factor).permute(2, 0, 1)
    leverage = weights * (1 + (solved * x).sum(-1))
    changes = solved / (1 - leverage.clamp(max=MAX_LEVERAGE)).unsqueeze(-1)
    return torch.where(exists[:, None], changes, torch.nan)


def _factored_squares(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centred regressors, the Cholesky factor of their covariance, and for which individuals there
    is one.
    """
    x = x - (weights.unsqueeze(-1) * x).sum(0)
    squares = torch.einsum("kn,kni,knj->nij", weights, x, x)
    jitter = JITTER * squares.diagonal(dim1=1, dim2=2).clamp(min=1e-300)
    factor, info = torch.linalg.cholesky_ex(squares + jitter.diag_embed())
    return x, factor, info == 0
