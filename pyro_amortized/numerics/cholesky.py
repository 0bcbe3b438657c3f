r"""Cholesky factors of estimated covariances.

An estimated covariance need not be positive definite. The functions of this module then give the
factor of a nearby covariance that is.
"""

import torch
from torch import Tensor

# Additions to the diagonal that are tried in turn, relative to it: from rounding errors to
# covariances that are far from positive definite.
DIAGONAL_ADDITIONS = (1e-9, 1e-6, 1e-3, 1e-1)
SMALLEST_VARIANCE = 1e-300  # stands for a variance of zero, so that its square root is positive
# Stands for a standard deviation of zero that lengths are divided by, so that these stay finite.
SMALLEST_DEVIATION = 1e-12


def factored(covariance: Tensor) -> Tensor:
    r"""Cholesky factor of every covariance of a batch.

    If a covariance is not positive definite, its diagonal is increased by the smallest of
    :data:`DIAGONAL_ADDITIONS` that suffices. If some values are not finite, the factor is diagonal
    and keeps the finite variances. A single individual can therefore not end a fit.

    Args:
        covariance: Symmetric, shape ``(*, n, n)``.

    Returns:
        Lower triangular, finite, with a positive diagonal, shape ``(*, n, n)``.

    Example:
        >>> factored(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))  # its diagonal
        tensor([[1., 0.],
                [0., 1.]])
        >>> factored(torch.tensor([[4.0, 0.0], [0.0, torch.nan]]))
        tensor([[2., 0.],
                [0., 1.]])
    """
    factors, info = torch.linalg.cholesky_ex(covariance)
    failed = (info != 0) | ~factors.isfinite().all(-1).all(-1)
    if not bool(failed.any()):
        return factors
    factors = factors.clone()
    factors[failed] = _nearby_factors(covariance[failed])
    return factors


def strictly_lower(entries: Tensor, size: int) -> Tensor:
    """Square matrices with some entries below the diagonal, row by row, and zeros elsewhere.

    Example:
        >>> strictly_lower(torch.tensor([1.0, 2.0, 3.0]), 3)
        tensor([[0., 0., 0.],
                [1., 0., 0.],
                [2., 3., 0.]])
    """
    row, column = torch.tril_indices(size, size, -1, device=entries.device)
    matrix = entries.new_zeros(*entries.shape[:-1], size, size)
    matrix[..., row, column] = entries
    return matrix


def inverse_factor(factor: Tensor) -> Tensor:
    """Inverses of lower triangular matrices ``(*, n, n)``."""
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)


def positive_deviations(covariance: Tensor) -> Tensor:
    """Standard deviations of covariances ``(*, n, n)``, positive, shape ``(*, n)``."""
    return covariance.diagonal(dim1=-2, dim2=-1).sqrt().clamp(min=SMALLEST_DEVIATION)


def _nearby_factors(covariance: Tensor) -> Tensor:
    """Factors of covariances ``(batch, n, n)`` whose diagonal is increased until there is one."""
    variances = _positive_variances(covariance)
    factors, pending = variances.sqrt().diag_embed(), torch.ones(len(covariance), dtype=torch.bool)
    for addition in DIAGONAL_ADDITIONS:
        factor, info = torch.linalg.cholesky_ex(covariance + (addition * variances).diag_embed())
        succeeded = pending & (info == 0) & factor.isfinite().all(-1).all(-1)
        factors[succeeded] = factor[succeeded]
        pending = pending & ~succeeded
    return factors


def _positive_variances(covariance: Tensor) -> Tensor:
    """The diagonal, with small numbers in place of zeros and 1 in place of unknown values."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    variances = torch.where(diagonal.isfinite(), diagonal, 0.0).clamp(min=0.0)
    has_scale = variances.amax(-1, keepdim=True) > 0
    replacement = torch.where(has_scale, SMALLEST_VARIANCE, 1.0)
    variances = torch.where(variances > 0, variances, replacement)
    return torch.where(diagonal.isfinite(), variances, 1.0)
