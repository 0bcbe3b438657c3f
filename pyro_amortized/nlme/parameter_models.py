r"""Fixed and random effects: how individual parameters follow from the population.

.. math:: \phi_i = A_i \alpha + B_i \beta_i, \qquad \beta_i \sim \mathcal N(0, \Omega), \qquad
    \Omega = D\, R\, D,

on an unconstrained (often logarithmic) scale; A and B are design matrices, D the standard
deviations, R a correlation matrix. In a program phi is one site with a density of its own::

    mean = nlme.fixed_effects(design, alpha)
    law = nlme.random_effects(mean, omega, correlation)        # correlation ~ LKJCholesky
    phi = pyro.sample("phi", law)

Covariate effects multiply a parameter (or add to its logarithm). Coefficients have the shape of
their population site, ``()`` or one more dimension per batch; covariates ``(individual,)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions import LogNormal, MultivariateNormal, TransformedDistribution
from torch import Tensor
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from ..cohort import Series
from ..errors import ModelError


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
    r"""Cholesky factor of Omega from standard deviations and the factor of a correlation matrix.

    Args:
        omega: Standard deviations, shape ``(*, effect)``.
        correlation: Cholesky factor of the correlation matrix, ``(*, effect, effect)``, for
            instance a draw of ``LKJCholesky``. Default: no correlation.

    Returns:
        Lower triangular, shape ``(*, effect, effect)``.
    """
    return torch.diag_embed(omega) if correlation is None else omega.unsqueeze(-1) * correlation


def block_factor(factors: Sequence[Tensor]) -> Tensor:
    r"""Cholesky factor of a block-diagonal Omega from those of its blocks.

    Args:
        factors: Each of shape ``(*, effect, effect)``.

    Example:
        >>> block_factor([torch.eye(1), 2 * torch.eye(2)]).diagonal()
        tensor([1., 2., 2.])
    """
    size = sum(f.shape[-1] for f in factors)
    lead = torch.broadcast_shapes(*(f.shape[:-2] for f in factors))
    found = factors[0].new_zeros(*lead, size, size)
    begin = 0
    for factor in factors:
        end = begin + factor.shape[-1]
        found[..., begin:end, begin:end] = factor
        begin = end
    return found


def random_effects(
    mean: Tensor,
    omega: Tensor,
    correlation: Tensor | None = None,
    design: Tensor | None = None,
) -> MultivariateNormal:
    r"""Law of the individual parameters, normal about their means with covariance B Omega B'.

    Args:
        mean: Shape ``(*, individual, latent)``, or ``(*, latent)`` where all have the same.
        omega: Standard deviations of the random effects, shape ``(*, effect)``.
        correlation: Cholesky factor of their correlations, or None.
        design: B, shape ``(latent, effect)``, of full row rank; a parameter without a random effect
            has no density and does not belong here. Default: the identity.

    Raises:
        ModelError: A design that leaves parameters without variability.
    """
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
    spread = design.to(factor.dtype) @ factor
    return MultivariateNormal(mean, covariance_matrix=spread @ spread.mT)


def lognormal(typical: Tensor, omega: Tensor) -> LogNormal:
    r"""Law of :math:`\phi = \theta e^\eta`, :math:`\eta \sim \mathcal N(0, \omega^2)`.

    Args:
        typical: theta, the median; positive.
        omega: Standard deviation of eta.
    """
    return LogNormal(typical.log(), omega)


def logitnormal(
    typical: Tensor, omega: Tensor, low: float = 0.0, high: float = 1.0
) -> TransformedDistribution:
    r"""Law of a parameter between two bounds whose logit is normal.

    .. math:: \operatorname{logit} \frac{\phi - l}{h - l} \sim \mathcal
        N\Bigl(\operatorname{logit}\frac{\theta - l}{h - l},\, \omega^2\Bigr)

    Args:
        typical: theta, the median, between the bounds.
        omega: Standard deviation on the logit scale.
        low: Lower bound.
        high: Upper bound.

    Example:
        >>> law = logitnormal(torch.tensor(0.3), torch.tensor(0.5))
        >>> round(float(law.log_prob(torch.tensor(0.3)).exp()), 3)
        3.799
    """
    center = torch.logit((typical - low) / (high - low))
    transforms = [SigmoidTransform(), AffineTransform(low, high - low)]
    return TransformedDistribution(dist.Normal(center, omega), transforms)


def box_cox(eta: Tensor, shape: Tensor) -> Tensor:
    r"""Box-Cox transformed random effect, :math:`(e^{\lambda \eta} - 1) / \lambda`.

    For :math:`\phi = \theta \exp(\text{box\_cox}(\eta, \lambda))` with eta the individual site; the
    shape is then a parameter on which the observations depend directly.

    Args:
        eta: Random effect.
        shape: lambda, broadcastable; near 0 the identity.

    References:
        Petersson, Hanze, Savic and Karlsson (2009), Semiparametric distributions with estimated
        shape parameters.
    """
    near = shape.abs() < 1e-5
    safe = torch.where(near, torch.ones_like(shape), shape)
    return torch.where(near, eta + shape * eta.square() / 2, torch.expm1(safe * eta) / safe)


def power_effect(covariate: Tensor, reference: float, exponent: Tensor | float) -> Tensor:
    r"""Factor :math:`(x / x_0)^\beta`, for instance of weight on clearance.

    Args:
        covariate: x, positive, shape ``(individual,)``.
        reference: x0, unit of the covariate.
        exponent: beta, a number or broadcastable (``beta[..., None]``).

    Raises:
        ModelError: A covariate that is not positive.
    """
    if not bool((covariate > 0).all()):
        raise ModelError(
            f"A power of the covariate of individual {int((covariate <= 0).nonzero()[0, 0])}, "
            f"{float(covariate.min())}.",
            "positive values.",
            "use `linear_effect`, or shift the covariate.",
        )
    return torch.exp(torch.as_tensor(exponent) * (covariate / reference).log())


def allometric(weight: Tensor, reference: float = 70.0) -> tuple[Tensor, Tensor]:
    r"""Allometric factors of clearances and of volumes, exponents 3/4 and 1.

    Args:
        weight: Body weight, kg, shape ``(individual,)``.
        reference: Weight of the typical individual, kg.

    References:
        Anderson and Holford (2008), Mechanism-based concepts of size and maturity in
        pharmacokinetics.
    """
    return power_effect(weight, reference, 0.75), power_effect(weight, reference, 1.0)


def linear_effect(covariate: Tensor, reference: float, slope: Tensor | float) -> Tensor:
    r"""Factor :math:`1 + \beta (x - x_0)`.

    Args:
        covariate: x, shape ``(individual,)``.
        reference: x0.
        slope: beta, a number or broadcastable.
    """
    return 1 + torch.as_tensor(slope) * (covariate - reference)


def categorical_effect(levels: Tensor, coefficients: Tensor) -> Tensor:
    r"""Factor :math:`e^{\beta_k}` of an individual's category k; that of category 0 is 1.

    Args:
        levels: Category of each individual, 0, 1, ..., shape ``(individual,)``.
        coefficients: beta of categories 1, 2, ..., shape ``(*, category - 1)``.

    Returns:
        Shape ``(*, individual)``.

    Raises:
        ModelError: A category without coefficient.

    Example:
        >>> categorical_effect(torch.tensor([0.0, 1.0]), torch.tensor([0.5]))
        tensor([1.0000, 1.6487])
    """
    index = levels.long()
    wrong = (index < 0) | (index > coefficients.shape[-1]) | (index != levels)
    if bool(wrong.any()):
        raise ModelError(
            f"Category {float(levels[wrong][0])} of individual {int(wrong.nonzero()[0])}.",
            f"categories 0 to {coefficients.shape[-1]}.",
            "number the categories from 0, and give one coefficient fewer than there are.",
        )
    zero = torch.zeros_like(coefficients[..., :1])
    return torch.cat([zero, coefficients], -1)[..., index].exp()


@dataclass(frozen=True, eq=False)
class Occasions:
    r"""Occasions of every individual, for variability between them.

    Args:
        number: Largest number of occasions of an individual, the size of the plate ``occasion``.
        index: Occasion of each time of the series, 0 first, shape ``(individual, time)``.
        changes: Time at which each further occasion begins, ``(individual, occasion - 1)``;
            infinite where there is none. For :class:`~pyro_amortized.nlme.ode.problem.Piecewise`.
    """

    number: int
    index: Tensor
    changes: Tensor


def occasions(record: Series, times: Tensor) -> Occasions:
    r"""Number the occasions of each individual in the order in which they come.

    The plate of occasions is padded: all individuals have ``number`` of them, and random effects of
    those that an individual does not have touch no data::

        visits = nlme.occasions(cohort.time_varying["OCC"], series.times)
        with pyro.plate("individual", len(cohort), dim=-1):
            phi = pyro.sample("phi", ...)
            with pyro.plate("occasion", visits.number, dim=-2):
                kappa = pyro.sample("kappa", dist.Normal(0.0, iov))      # (occasion, individual)
        cl = phi[:, 0].exp().unsqueeze(-1) * kappa.T.exp()               # (individual, occasion)

    Args:
        record: Label of the occasion over time, as the column OCC of a table gives it.
        times: Observation times, shape ``(individual, time)``.
    """
    labels = record.at(record.times)
    switch = torch.cat(
        [torch.zeros_like(labels[:, :1], dtype=torch.bool), labels[:, 1:] != labels[:, :-1]], 1
    )
    number = switch.long().cumsum(1)
    largest = int(number.max()) + 1
    begin = torch.full((len(labels), largest), torch.inf, dtype=record.times.dtype)
    begin.scatter_reduce_(1, number, record.times, "amin")
    index = (times.unsqueeze(-1) >= begin[:, 1:].unsqueeze(1)).sum(-1)
    return Occasions(largest, index, begin[:, 1:])


def by_occasion(values: Tensor, index: Tensor) -> Tensor:
    r"""The value of the occasion that each time belongs to.

    Args:
        values: Shape ``(*, individual, occasion)``.
        index: Occasion of each time, shape ``(individual, time)``.

    Returns:
        Shape ``(*, individual, time)``.
    """
    return values.gather(-1, index.expand(*values.shape[:-1], index.shape[-1]))
