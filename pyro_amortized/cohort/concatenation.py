r"""Concatenation of cohorts along the individuals."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CohortError
from .category_alignment import with_categories_of
from .cohort import Cohort
from .doses import Doses
from .labels import Labels, are_default_labels, check_unique
from .series import Series


def concatenate(cohorts: Sequence[Cohort]) -> Cohort:
    r"""Concatenate cohorts along the individuals; times and doses are padded to the same number.

    If no cohort has labels given by the user, the individuals are numbered anew. Categories keep
    their names: those that the first cohort does not have are numbered after its own.

    Args:
        cohorts: One or more cohorts with the same series and covariates.

    Raises:
        CohortError: The cohorts differ in their series, in their covariates or in whether they have
            doses, or one label names individuals of two cohorts.
    """
    if not cohorts or not all(isinstance(x, Cohort) for x in cohorts):
        kinds = [type(x).__name__ for x in cohorts]
        raise CohortError(
            f"To be concatenated: {kinds}.", "at least one Cohort.", "pass a list of cohorts."
        )
    names = _all_categories(cohorts)
    joined = end_to_end([with_categories_of(x, names) for x in cohorts])
    if all(are_default_labels(c.ids) for c in cohorts):
        return replace(joined, ids=())
    check_unique([label for c in cohorts for label in dict.fromkeys(c.ids)])
    return joined


def _all_categories(cohorts: Sequence[Cohort]) -> dict[str, tuple[str, ...]]:
    """The names of categories of all cohorts, for covariates that have names in each of them."""
    shared = set.intersection(*(set(c.categories) for c in cohorts))
    return {
        name: tuple(dict.fromkeys(x for c in cohorts for x in c.categories[name]))
        for name in shared
    }


def end_to_end(cohorts: Sequence[Cohort]) -> Cohort:
    r"""Concatenate cohorts of which individuals may be repeated: the labels are not checked.

    Args:
        cohorts: One or more cohorts with the same series and covariates.

    Raises:
        CohortError: The cohorts differ in their series, in their covariates or in whether they have
            doses.
    """
    first = cohorts[0]
    for other in cohorts[1:]:
        if _form(other) != _form(first):
            raise CohortError(
                f"A cohort of {_form(other)} was concatenated with one of {_form(first)}.",
                "the same series and covariates in every cohort, and doses in all of them or in "
                "none.",
                "add a missing series with `observed` False everywhere, or missing doses with "
                "`given` False everywhere.",
            )
    series = {name: _joined([c[name] for c in cohorts]) for name in first.series}
    varying = {n: _joined([c.time_varying[n] for c in cohorts]) for n in first.time_varying}
    all_doses = [c.doses for c in cohorts if c.doses is not None]
    doses = None
    if all_doses:
        columns = {n: [getattr(d, n) for d in all_doses] for n in all_doses[0].columns}
        doses = Doses(**{n: _pad_rows(x, float(n == "compartment")) for n, x in columns.items()})
    covariates = {
        name: torch.cat([c.covariates[name] for c in cohorts]) for name in first.covariates
    }
    labels = Labels(x for c in cohorts for x in c.ids)
    return Cohort(series, doses, covariates, labels, varying, first.categories)


def _form(cohort: Cohort) -> dict[str, object]:
    return {
        "series": sorted(cohort.series),
        "covariates": sorted(cohort.covariates),
        "categories": dict(cohort.categories),
        "time-varying covariates": sorted(cohort.time_varying),
        "doses": cohort.doses is not None,
    }


def _joined(parts: Sequence[Series]) -> Series:
    return Series(
        _pad_rows([s.times for s in parts], None),
        _pad_rows([s.values for s in parts], 0.0),
        _pad_rows([s.observed for s in parts], False),
    )


def _pad_rows(tensors: Sequence[Tensor], fill: float | None) -> Tensor:
    """The rows of all tensors in one, padded with a value, or with the last of the row (None)."""
    length = max(t.shape[1] for t in tensors)

    def pad(t: Tensor) -> Tensor:
        num_missing = length - t.shape[1]
        if fill is None:
            tail = t[:, -1:].expand(-1, num_missing)
        else:
            tail = t.new_full((len(t), num_missing, *t.shape[2:]), fill)
        return torch.cat([t, tail], 1)

    return torch.cat([pad(t) for t in tensors])
