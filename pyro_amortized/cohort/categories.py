"""Names of the categories of covariates, and their form in files."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..errors import CohortError

Categories = Mapping[str, tuple[str, ...]]


def checked_categories(categories: Any, covariates: Mapping[str, Tensor]) -> Categories:
    r"""The names of the categories of covariates, checked.

    Args:
        categories: By the name of a covariate, the names of its categories 0, 1, ...
        covariates: The covariates.

    Raises:
        CohortError: There is no such covariate, names are no list of different texts, or a value of
            the covariate has no name.
    """
    checked: dict[str, tuple[str, ...]] = {}
    for covariate, names in dict(categories).items():
        if covariate not in covariates:
            raise CohortError(
                f"Categories of {covariate!r}, which is no covariate.",
                f"one of {sorted(covariates)}.",
                "correct `categories=`, or add the covariate.",
            )
        is_list = not isinstance(names, str) and all(isinstance(x, str) for x in names)
        if not is_list or len(set(names)) < len(names):
            raise CohortError(
                f"The categories of {covariate!r} are {names!r}.",
                "different names, for the values 0, 1, ...",
                'pass for instance {"sex": ("female", "male")}.',
            )
        values = covariates[covariate]
        unnamed = (values != values.round()) | (values < 0) | (values >= len(names))
        if bool(unnamed.any()):
            raise CohortError(
                f"The covariate {covariate!r} is {float(values[unnamed][0]):g} for an individual, "
                f"and has the categories {list(names)}.",
                f"0 to {len(names) - 1}.",
                "give a name to every category, or number them from 0.",
            )
        checked[covariate] = tuple(names)
    return MappingProxyType(checked)


def place_of_category(categories: Categories, covariate: str, name: str) -> int:
    r"""The number of a category.

    Raises:
        CohortError: The covariate has no category of that name.
    """
    names = categories.get(covariate, ())
    if name not in names:
        raise CohortError(
            f"The covariate {covariate!r} has no category {name!r}.",
            f"one of {list(names)}." if names else "a covariate with names of its categories.",
            "check the name; names come from a table with text, or are given by `categories=`, "
            "for `nlme.read_table` also those that no individual of the table has.",
        )
    return names.index(name)


def renumbered(
    values: Tensor, names: tuple[str, ...], known: tuple[str, ...], covariate: str
) -> Tensor:
    r"""The numbers of categories under other names: those of another cohort, in its order.

    Args:
        values: Numbers of categories, shape ``(individual,)``.
        names: Their names; empty if they have none, and the numbers are then kept.
        known: The names of the other cohort.
        covariate: Name of the covariate.

    Raises:
        CohortError: A category of an individual is none of the other cohort.
    """
    if not names:
        return values
    used = [names[int(k)] for k in values]
    unknown = [x for x in used if x not in known]
    if unknown:
        raise CohortError(
            f"The covariate {covariate!r} is {unknown[0]!r} for an individual.",
            f"one of {list(known)}, as in the data that the population was estimated from.",
            "correct the entry, leave the individual out, or fit again with this category.",
        )
    return values.new_tensor([known.index(x) for x in used])


def category_tensors(categories: Categories, num: int) -> dict[str, Tensor]:
    """The names as tensors of bytes, shape ``(individual, byte)``: a file of tensors keeps them,
    and a choice of individuals does not lose them.
    """
    return {
        name: torch.tensor(list("\0".join(names).encode()), dtype=torch.uint8).expand(num, -1)
        for name, names in categories.items()
    }


def categories_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """The names from the tensors of :func:`category_tensors`."""
    return {name: tuple(bytes(x[0].tolist()).decode().split("\0")) for name, x in tensors.items()}
