r"""Effects of covariates on the individual parameters, as factors.

With a covariate x and its reference value :math:`x_0`, a parameter is multiplied by

.. math:: (x / x_0)^\beta \;\text{(power)}, \qquad 1 + \beta (x - x_0) \;\text{(linear)}, \qquad
    e^{\beta_k} \;\text{(category k)} .

The logarithm of a factor is added to a parameter on the logarithmic scale. Coefficients have the
shape of their population site, ``()`` or one more dimension per batch. Covariates have the shape
``(individual,)``.
"""

import torch
from torch import Tensor

from ..cohort import Series
from ..errors import ModelError
from ..runtime.arguments import check_is


def power_effect(covariate: Tensor, reference: float, exponent: Tensor | float) -> Tensor:
    r"""Factor :math:`(x / x_0)^\beta`, for instance of weight on clearance.

    Args:
        covariate: x, positive, shape ``(individual,)``.
        reference: x0, unit of the covariate.
        exponent: beta, a number, or a tensor that broadcasts to the covariate
            (``beta[..., None]``).

    Returns:
        Shape ``(*, individual)``, no unit.

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
    r"""Allometric factors of clearances and of volumes, with exponents 3/4 and 1.

    Args:
        weight: Body weight, kg, shape ``(individual,)``.
        reference: Weight of the typical individual, kg.

    Returns:
        Factor of clearances and factor of volumes, shape ``(individual,)`` each, no unit.

    Raises:
        ModelError: A weight that is not positive.

    References:
        Anderson and Holford (2008), Mechanism-based concepts of size and maturity in
        pharmacokinetics.
    """
    return power_effect(weight, reference, 0.75), power_effect(weight, reference, 1.0)


def linear_effect(covariate: Tensor, reference: float, slope: Tensor | float) -> Tensor:
    r"""Factor :math:`1 + \beta (x - x_0)`.

    Args:
        covariate: x, shape ``(individual,)``.
        reference: x0, unit of the covariate.
        slope: beta, per unit of the covariate; a number, or a tensor that broadcasts to the
            covariate.

    Returns:
        Shape ``(*, individual)``, no unit.
    """
    return 1 + torch.as_tensor(slope) * (covariate - reference)


def categorical_effect(levels: Tensor, coefficients: Tensor) -> Tensor:
    r"""Factor :math:`e^{\beta_k}` of an individual's category k; category 0 has the factor 1.

    Args:
        levels: Category of each individual, 0, 1, ..., shape ``(individual,)``.
        coefficients: beta of categories 1, 2, ..., shape ``(*, category - 1)``.

    Returns:
        Shape ``(*, individual)``, no unit.

    Raises:
        ModelError: A category without a coefficient.

    Example:
        >>> categorical_effect(torch.tensor([0.0, 1.0]), torch.tensor([0.5]))
        tensor([1.0000, 1.6487])
    """
    index = levels.long()
    invalid = (index < 0) | (index > coefficients.shape[-1]) | (index != levels)
    if bool(invalid.any()):
        raise ModelError(
            f"Category {float(levels[invalid][0])} of individual {int(invalid.nonzero()[0])}.",
            f"categories 0 to {coefficients.shape[-1]}.",
            "number the categories from 0, and give one coefficient fewer than there are "
            "categories.",
        )
    reference = torch.zeros_like(coefficients[..., :1])
    return torch.cat([reference, coefficients], -1)[..., index].exp()


def completed(record: Series, imputed: Tensor) -> Tensor:
    r"""A covariate that some individuals lack: the recorded value, or that of a latent site.

    With a normal site z and the parameters of the distribution of the covariate,
    ``completed(cohort["weight"], (mean[..., None] + sd[..., None] * z).exp())`` is the weight of
    every individual; the recorded ones are observed under the same distribution (page *Missing
    data*). The likelihood then contains the integral over the missing values.

    Args:
        record: Series with one time, recorded or not, as ``nlme.read_table(incomplete=)`` makes it.
        imputed: Values of the latent site on the scale of the covariate, shape ``(*,
            individual)``.

    Returns:
        Shape ``(*, individual)``.

    Raises:
        ModelError: The series has more than one time, or shapes do not agree.

    Example:
        >>> record = Series(torch.zeros(2, 1), torch.tensor([[70.0], [torch.nan]]))
        >>> completed(record, torch.tensor([66.0, 64.0]))
        tensor([70., 64.])
    """
    fix = 'pass the series of the covariate, `cohort["weight"]`, and the values of a latent site.'
    check_is("record", record, Series, fix, ModelError)
    check_is("imputed", imputed, Tensor, fix, ModelError)
    if imputed.dim() and imputed.shape[-1] not in (1, len(record.values)):
        raise ModelError(
            f"`imputed` has shape {tuple(imputed.shape)}.",
            f"({len(record.values)},), one value for each individual.",
            fix,
        )
    if record.values.shape[1:] != (1,):
        raise ModelError(
            f"The covariate has values of shape {tuple(record.values.shape)}.",
            "(individual, 1): one value per individual.",
            "read it by `incomplete=`, or make a Series with one time.",
        )
    known, values = record.observed[:, 0], record.values[:, 0]
    return torch.where(known, values.to(imputed.dtype), imputed)
