r"""Studies that have no data yet: times, doses and covariates of N individuals.

The result is a :class:`~pyro_amortized.Cohort` with placeholder values, as designs need: for
simulation, for expected standard errors, and for training before a study.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..cohort import Cohort, Series
from ..errors import SettingError
from ..runtime.arguments import check_count, check_is
from .regimens import Regimen


def study(
    times: Sequence[float] | Tensor | Mapping[str, Sequence[float] | Tensor],
    regimen: Regimen | None = None,
    *,
    num_individuals: int = 1,
    covariates: Mapping[str, float | Sequence[float] | Tensor] | None = None,
    series: str = "dv",
) -> Cohort:
    r"""A cohort without data.

    Args:
        times: Sampling times, shape ``(time,)`` for all or ``(individual, time)``, in the unit of
            the data; a mapping from the name of a series to its times for several series.
        regimen: The doses. Default: no doses.
        num_individuals: Number of individuals.
        covariates: One number, or one per individual, by name.
        series: Name of the series, as in the model; ignored where ``times`` is a mapping.

    Returns:
        The cohort; its values are placeholders, and all are marked as recorded.

    Raises:
        SettingError: A covariate has another number of individuals, or the times are not sorted.

    Example:
        >>> from pyro_amortized import nlme
        >>> cohort = nlme.study([1, 4, 24], nlme.regimen(70), num_individuals=32)
        >>> len(cohort), cohort.num_observations
        (32, 96)
    """
    check_count("num_individuals", num_individuals)
    if regimen is not None:
        check_is("regimen", regimen, Regimen, "pass what `nlme.regimen` gives.")
    by_series = dict(times) if isinstance(times, Mapping) else {series: times}
    known = given_covariates(covariates or {}, num_individuals)
    return Cohort(
        {name: _placeholders(x, num_individuals) for name, x in by_series.items()},
        None if regimen is None else regimen.doses(num_individuals, known),
        known,
    )


def given_covariates(
    covariates: Mapping[str, float | Sequence[float] | Tensor], num_individuals: int
) -> dict[str, Tensor]:
    """Covariates of N individuals from one number, or one per individual."""
    result = {}
    for name, value in covariates.items():
        x = torch.as_tensor(value, dtype=torch.float64)
        if x.dim() > 1 or (x.dim() == 1 and len(x) not in (1, num_individuals)):
            raise SettingError(
                f"Covariate {name!r} has shape {tuple(x.shape)}.",
                f"one number, or {num_individuals} numbers, one per individual.",
                "correct `covariates=` or `num_individuals=`.",
            )
        result[name] = x.expand(num_individuals).clone()
    return result


def _placeholders(times: Sequence[float] | Tensor, num: int) -> Series:
    x = torch.as_tensor(times, dtype=torch.float64)
    x = x.expand(num, -1).clone() if x.dim() == 1 else x
    if x.dim() != 2 or len(x) != num or x.shape[1] == 0 or bool((x.diff(dim=1) < 0).any()):
        raise SettingError(
            f"`times` has shape {tuple(x.shape)}.",
            f"increasing times, shape (time,) or ({num}, time).",
            "correct `times=` or `num_individuals=`.",
        )
    return Series(x, torch.ones_like(x))
