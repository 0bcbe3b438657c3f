r"""Cholesky factors of covariances that were estimated, and may therefore have none."""

import torch
from torch import Tensor

SHARES = (1e-9, 1e-6, 1e-3, 1e-1)
LEAST = 1e-300


def factored(covariance: Tensor) -> Tensor:
    r"""Cholesky factor of every covariance of a batch.

    One that has none gets a larger diagonal, by as little as helps; one whose numbers are not
    finite keeps what is finite of its diagonal. So a single individual cannot end a fit.

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
    found, info = torch.linalg.cholesky_ex(covariance)
    bad = (info != 0) | ~found.isfinite().all(-1).all(-1)
    if not bool(bad.any()):
        return found
    rest = covariance[bad]
    size = torch.where(rest.isfinite(), rest, 0.0).diagonal(dim1=-2, dim2=-1).clamp(min=0.0)
    size = torch.where(size > 0, size, torch.where(size.amax(-1, keepdim=True) > 0, LEAST, 1.0))
    size = torch.where(rest.diagonal(dim1=-2, dim2=-1).isfinite(), size, 1.0)
    result, left = size.sqrt().diag_embed(), torch.ones(len(rest), dtype=torch.bool)
    for share in SHARES:
        factor, info = torch.linalg.cholesky_ex(rest + (share * size).diag_embed())
        good = left & (info == 0) & factor.isfinite().all(-1).all(-1)
        result[good] = factor[good]
        left = left & ~good
    found = found.clone()
    found[bad] = result
    return found
