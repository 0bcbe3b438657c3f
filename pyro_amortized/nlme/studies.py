r"""Studies that have no data yet: times, doses and covariates of N individuals.

The result is a :class:`~pyro_amortized.Cohort` with placeholder values, as designs need: for
simulation, for expected standard errors, and for training before a study.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor

from ..cohort import Cohort, Series
from ..cohort.categories import place_of_category
from ..errors import SettingError
from ..runtime.arguments import check_count, check_is
from .regimens import Regimen

GivenCovariates = Mapping[str, Any] | pandas.DataFrame


def study(
    times: Sequence[float] | Tensor | Mapping[str, Sequence[float] | Tensor],
    regimen: Regimen | None = None,
    *,
    num_individuals: int | None = None,
    covariates: GivenCovariates | None = None,
    series: str = "dv",
) -> Cohort:
    r"""A cohort without data.

    Args:
        times: Sampling times, shape ``(time,)`` for all or ``(individual, time)``, in the unit of
            the data; a mapping from the name of a series to its times for several series.
        regimen: The doses. Default: no doses.
        num_individuals: Number of individuals. Default: as many as a covariate has values, else 1.
        covariates: One number, or one per individual, by name; or a data frame with one row per
            individual.
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
    given = {} if covariates is None else covariates
    num = num_rows(given) or 1 if num_individuals is None else num_individuals
    check_count("num_individuals", num)
    if regimen is not None:
        check_is("regimen", regimen, Regimen, "pass what `nlme.regimen` gives.")
    by_series = dict(times) if isinstance(times, Mapping) else {series: times}
    known = given_covariates(given, num)
    return Cohort(
        {name: _placeholders(x, num) for name, x in by_series.items()},
        None if regimen is None else regimen.doses(num, known),
        known,
    )


def covariate_columns(covariates: Any) -> dict[str, Any]:
    """Covariates by name, from a mapping or from a data frame with one row per individual."""
    fix = "pass `{name: value or values}`, or a data frame with one row per individual."
    check_is("covariates", covariates, (Mapping, pandas.DataFrame), fix)
    return {str(name): covariates[name] for name in covariates}


def num_rows(covariates: GivenCovariates) -> int | None:
    """Largest number of values of a covariate that has several; None if none has."""
    values = covariate_columns(covariates).values()
    lengths = [len(x) for x in values if not isinstance(x, str) and _is_list(x)]
    return max((n for n in lengths if n > 1), default=None)


def _is_list(values: Any) -> bool:
    return hasattr(values, "__len__") and getattr(values, "ndim", 1) > 0


def given_covariates(
    covariates: GivenCovariates,
    num_individuals: int,
    categories: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Tensor]:
    r"""Covariates of N individuals from one value, or one per individual.

    Args:
        covariates: By name; or a data frame.
        num_individuals: Number of individuals.
        categories: Names of categories by covariate, which may be given in place of numbers.

    Raises:
        SettingError: A covariate has another number of individuals, or values that are no finite
            numbers.
        CohortError: A category is unknown.
    """
    result = {}
    for name, value in covariate_columns(covariates).items():
        x = _numbers(name, value, categories or {})
        if x.dim() > 1 or (x.dim() == 1 and len(x) not in (1, num_individuals)):
            raise SettingError(
                f"Covariate {name!r} has shape {tuple(x.shape)}.",
                f"one number, or {num_individuals} numbers, one per individual.",
                "correct `covariates=` or `num_individuals=`.",
            )
        result[name] = x.expand(num_individuals).clone()
    return result


def _numbers(name: str, value: Any, categories: Mapping[str, tuple[str, ...]]) -> Tensor:
    """Values of a covariate as numbers; names of categories are replaced by theirs."""

    def number(x: Any) -> Any:
        return place_of_category(categories, name, x) if isinstance(x, str) else x

    one = isinstance(value, str | int | float)
    values = value if isinstance(value, Tensor) else number(value) if one else [*map(number, value)]
    try:
        x = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        x = torch.tensor(torch.nan)
    if not bool(x.isfinite().all()):
        raise SettingError(
            f"Covariate {name!r} is {value!r}.",
            "finite numbers, or names of its categories.",
            "correct the values; leave out individuals for whom it is not known.",
        )
    return x


def _placeholders(times: Sequence[float] | Tensor, num: int) -> Series:
    x = torch.as_tensor(times, dtype=torch.float64)
    x = x.expand(num, -1).clone() if x.dim() == 1 else x
    if x.dim() == 2 and bool((x.diff(dim=1) < 0).any()):
        place = int((x.diff(dim=1) < 0).any(0).nonzero()[0])
        raise SettingError(
            f"`times` falls from {float(x[:, place].max()):g} to {float(x[:, place + 1].min()):g}.",
            "times that do not decrease.",
            "sort `times=`.",
        )
    if x.dim() != 2 or len(x) != num or x.shape[1] == 0:
        raise SettingError(
            f"`times` has shape {tuple(x.shape)}.",
            f"one time or more, shape (time,) or ({num}, time).",
            "correct `times=` or `num_individuals=`.",
        )
    return Series(x, torch.ones_like(x))
