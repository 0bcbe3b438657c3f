r"""Distributions of the individual parameters: fixed effects, random effects, transformations.

.. math:: \phi_i = A_i \alpha + B \eta_i, \qquad \eta_i \sim \mathcal N(0, \Omega), \qquad
    \Omega = D\, R\, D,

on an unconstrained, often logarithmic, scale. A and B are design matrices, D is the diagonal matrix
of the standard deviations ``omega``, and R is a correlation matrix. In a model phi is one site with
a density of its own::

    mean = nlme.fixed_effects(design, alpha)
    distribution = nlme.random_effects(mean, omega, correlation)    # correlation ~ LKJCholesky
    phi = pyro.sample("phi", distribution)

In shapes, ``*`` stands for batch dimensions, for instance one per draw of the population
parameters. ``latent`` counts the individual parameters, ``effect`` the fixed or random effects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions import LogNormal, MultivariateNormal, TransformedDistribution
from torch import Tensor
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from ..errors import ModelError
from ..numerics.broadcasting import broadcast_shape


@dataclass(frozen=True)
class BoxCoxSettings:
    r"""How the Box-Cox transformation is computed.

    Args:
        series_below: Absolute value of the shape below which two terms of the series in the shape
            are used. For effects near 1 the next term is 1e-11 there, and the formula divides by
            the shape.
    """

    series_below: float = 1e-5


DEFAULTS = BoxCoxSettings()


def fixed_effects(design: Tensor, coefficients: Tensor) -> Tensor:
    r"""Means of the individual parameters, A alpha.

    Args:
        design: A, shape ``(individual, latent, effect)``.
        coefficients: alpha, shape ``(*, effect)``.

    Returns:
        Shape ``(*, individual, latent)``.

    Raises:
        ModelError: The number of effects differs.

    Example:
        >>> weight = torch.tensor([0.0, 0.2])                       # log(weight / 70)
        >>> one, zero = torch.ones(2), torch.zeros(2)
        >>> clearance = torch.stack([one, zero, 0.75 * weight], -1)
        >>> volume = torch.stack([zero, one, weight], -1)
        >>> rows = [clearance, volume]
        >>> fixed_effects(torch.stack(rows, -2), torch.tensor([1.0, 3.0, 1.0]))
        tensor([[1.0000, 3.0000],
                [1.1500, 3.2000]])
    """
    if design.dim() != 3 or design.shape[-1] != coefficients.shape[-1]:
        raise ModelError(
            f"`design` has shape {tuple(design.shape)}, `coefficients` "
            f"{tuple(coefficients.shape)}.",
            "(individual, latent, effect) and (*, effect).",
            "give the design one column per coefficient.",
        )
    return torch.einsum("nle,...e->...nl", design.to(coefficients.dtype), coefficients)


def scale_factor(omega: Tensor, correlation: Tensor | None = None) -> Tensor:
    r"""Cholesky factor of Omega, from standard deviations and the factor of a correlation matrix.

    Args:
        omega: Standard deviations, shape ``(*, effect)``.
        correlation: Cholesky factor of the correlation matrix, shape ``(*, effect, effect)``, for
            instance a draw of ``LKJCholesky``. Default: no correlation.

    Returns:
        Lower triangular, shape ``(*, effect, effect)``.
    """
    return torch.diag_embed(omega) if correlation is None else omega.unsqueeze(-1) * correlation


def block_factor(factors: Sequence[Tensor]) -> Tensor:
    r"""Cholesky factor of a block-diagonal Omega, from the factors of its blocks.

    Args:
        factors: Each of shape ``(*, effect, effect)``; the number of effects may differ.

    Returns:
        Lower triangular, shape ``(*, effect, effect)`` with the sum of the numbers of effects.

    Example:
        >>> block_factor([torch.eye(1), 2 * torch.eye(2)]).diagonal()
        tensor([1., 2., 2.])
    """
    size = sum(f.shape[-1] for f in factors)
    batch_shape = broadcast_shape(*(f.shape[:-2] for f in factors))
    joint_factor = factors[0].new_zeros(*batch_shape, size, size)
    begin = 0
    for factor in factors:
        end = begin + factor.shape[-1]
        joint_factor[..., begin:end, begin:end] = factor
        begin = end
    return joint_factor


def random_effects(
    mean: Tensor,
    omega: Tensor,
    correlation: Tensor | None = None,
    design: Tensor | None = None,
) -> MultivariateNormal:
    r"""Normal distribution of the individual parameters, with covariance B Omega B'.

    Args:
        mean: Shape ``(*, individual, latent)``, or ``(*, latent)`` if all individuals have the same
            mean.
        omega: Standard deviations of the random effects, shape ``(*, effect)``.
        correlation: Cholesky factor of their correlation matrix, shape ``(*, effect, effect)``.
            Default: no correlation.
        design: B, shape ``(latent, effect)``, of full row rank. A parameter without a random effect
            has no density and must not be part of phi. Default: the identity.

    Returns:
        Batch shape ``mean.shape[:-1]``, event shape ``(latent,)``.

    Raises:
        ModelError: The design leaves some parameters without variability.
    """
    dtype = torch.promote_types(mean.dtype, omega.dtype)
    mean, omega = mean.to(dtype), omega.to(dtype)
    if correlation is not None:
        correlation = correlation.to(dtype)
    factor = scale_factor(omega, correlation)
    if omega.dim() and mean.dim() > omega.dim():
        factor = factor.unsqueeze(-3)
    if design is None:
        return MultivariateNormal(mean, scale_tril=factor.expand(*mean.shape, mean.shape[-1]))
    if design.shape[-2] > design.shape[-1] or int(torch.linalg.matrix_rank(design)) < len(design):
        raise ModelError(
            f"A design of random effects of shape {tuple(design.shape)}, rank "
            f"{int(torch.linalg.matrix_rank(design))}.",
            "one random effect or more for every individual parameter.",
            "keep parameters without variability outside the plate.",
        )
    projected = design.to(factor.dtype) @ factor
    return MultivariateNormal(mean, covariance_matrix=projected @ projected.mT)


def lognormal(typical: Tensor, omega: Tensor) -> LogNormal:
    r"""Distribution of :math:`\phi = \theta e^\eta`, :math:`\eta \sim \mathcal N(0, \omega^2)`.

    Args:
        typical: theta, the median; positive, broadcastable to ``omega``.
        omega: Standard deviation of eta, which is near the coefficient of variation of phi.

    Returns:
        Batch shape of ``typical`` and ``omega`` broadcast.
    """
    return LogNormal(typical.log(), omega)


def logitnormal(
    typical: Tensor, omega: Tensor, low: float = 0.0, high: float = 1.0
) -> TransformedDistribution:
    r"""Distribution of a parameter between two bounds whose logit is normal.

    .. math:: \operatorname{logit} \frac{\phi - l}{h - l} \sim \mathcal
        N\Bigl(\operatorname{logit}\frac{\theta - l}{h - l},\, \omega^2\Bigr)

    Args:
        typical: theta, the median, between the bounds; broadcastable to ``omega``.
        omega: Standard deviation on the logit scale.
        low: Lower bound l.
        high: Upper bound h.

    Returns:
        Batch shape of ``typical`` and ``omega`` broadcast.

    Example:
        >>> distribution = logitnormal(torch.tensor(0.3), torch.tensor(0.5))
        >>> round(float(distribution.log_prob(torch.tensor(0.3)).exp()), 3)
        3.799
    """
    center = torch.logit((typical - low) / (high - low))
    transforms = [SigmoidTransform(), AffineTransform(low, high - low)]
    return TransformedDistribution(dist.Normal(center, omega), transforms)


def box_cox(eta: Tensor, shape: Tensor) -> Tensor:
    r"""Box-Cox transformed random effect, :math:`(e^{\lambda \eta} - 1) / \lambda`.

    Use it as :math:`\phi = \theta \exp(\text{box\_cox}(\eta, \lambda))` with eta as the individual
    site. The shape lambda is then a parameter on which the observations depend directly.

    Args:
        eta: Random effect.
        shape: lambda, broadcastable to ``eta``. For lambda = 0 the result is eta.

    Returns:
        Shape of ``eta`` and ``shape`` broadcast.

    References:
        Petersson, Hanze, Savic and Karlsson (2009), Semiparametric distributions with estimated
        shape parameters.
    """
    use_series = shape.abs() < DEFAULTS.series_below
    safe_shape = torch.where(use_series, torch.ones_like(shape), shape)
    series = eta + shape * eta.square() / 2
    return torch.where(use_series, series, torch.expm1(safe_shape * eta) / safe_shape)
