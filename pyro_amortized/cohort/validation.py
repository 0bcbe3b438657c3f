r"""Checks of the parts of a cohort: their classes, shapes and values."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CohortError
from ..runtime.arguments import check_is
from .doses import Doses
from .series import Series, floating


def checked_covariate(name: str, x: Any) -> Tensor:
    r"""A covariate in a floating dtype, shape ``(individual,)``.

    Args:
        name: Name of the covariate, for the message.
        x: Its values, a tensor or what torch makes a tensor of.

    Raises:
        CohortError: Not numbers, another shape, or a value that is not finite.
    """
    try:
        values = floating(torch.as_tensor(x), name)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CohortError(
            f"Covariate {name!r} cannot be read as numbers: {error}",
            "one number per individual.",
            "code categories as numbers (0, 1, ...).",
        ) from error
    if values.dim() != 1:
        raise CohortError(
            f"Covariate {name!r} has the wrong shape {tuple(values.shape)}.",
            "one value per individual, shape (individual,).",
            "pass a covariate that varies over time as `time_varying=`.",
        )
    if not values.isfinite().all():
        raise CohortError(
            f"Covariate {name!r} of individual {int((~values.isfinite()).nonzero()[0])} is "
            "not finite.",
            "a finite value for every individual.",
            "impute it (for example by the median) and, if it may matter that it was missing, add "
            "a covariate that indicates this.",
        )
    return values


def check_kinds(series: Any, covariates: Any, doses: Any, time_varying: Any) -> None:
    r"""Raise unless every part of a cohort has its class.

    Args:
        series: Should be a mapping from names to :class:`Series`, not empty.
        covariates: Should be a mapping.
        doses: Should be :class:`Doses` or None.
        time_varying: Should be a mapping from names to :class:`Series`.

    Raises:
        CohortError: A part is of another class.
    """
    for argument, group in (("series", series), ("time_varying", time_varying)):
        check_is(argument, group, Mapping, "pass {name: Series(times, values)}.", CohortError)
        for name, x in group.items():
            check_is("name", name, str, "use a text as the name of every series.", CohortError)
            fix = "pass Series(times, values), with a time for every value."
            check_is(f"{argument}[{name!r}]", x, Series, fix, CohortError)
    if not series:
        raise CohortError(
            "The cohort has no series.",
            "at least one observed quantity.",
            'pass series={"concentration": Series(times, values)}.',
        )
    check_is("covariates", covariates, Mapping, "pass {name: values}.", CohortError)
    if doses is not None:
        check_is("doses", doses, Doses, "pass Doses(times, amounts).", CohortError)
