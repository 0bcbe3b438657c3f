r"""Cohorts laid end to end."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CohortError
from .cohort import Cohort
from .doses import Doses
from .labels import Labels, are_default_labels, check_unique
from .series import Series


def concatenate(cohorts: Sequence[Cohort]) -> Cohort:
    r"""Lay cohorts of the same series and covariates end to end, padding times and doses.

    Args:
        cohorts: One or more cohorts.

    Individuals that nobody gave a label are numbered anew.

    Raises:
        CohortError: The cohorts differ in their series, covariates or in whether they have doses,
            or one label names individuals of two cohorts.
    """
    if not cohorts or not all(isinstance(x, Cohort) for x in cohorts):
        kinds = [type(x).__name__ for x in cohorts]
        raise CohortError(
            f"To be laid end to end: {kinds}.", "at least one Cohort.", "pass a list of cohorts."
        )
    joined = end_to_end(cohorts)
    if all(are_default_labels(c.ids) for c in cohorts):
        return replace(joined, ids=())
    check_unique([label for c in cohorts for label in dict.fromkeys(c.ids)])
    return joined


def end_to_end(cohorts: Sequence[Cohort]) -> Cohort:
    """The same without a look at the labels, which may be those of repeated individuals."""
    first = cohorts[0]
    for other in cohorts[1:]:
        if _form(other) != _form(first):
            raise CohortError(
                f"A cohort of {_form(other)} meets one of {_form(first)}.",
                "the same series and covariates in every cohort, and doses in all of them or in "
                "none.",
                "add what is missing as an unrecorded series (`observed` False), or empty doses "
                "(`given` False).",
            )
    series = {name: _end_to_end([c[name] for c in cohorts]) for name in first.series}
    varying = {n: _end_to_end([c.time_varying[n] for c in cohorts]) for n in first.time_varying}
    all_doses = [c.doses for c in cohorts if c.doses is not None]
    doses = None
    if all_doses:
        columns = {n: [getattr(d, n) for d in all_doses] for n in vars(all_doses[0])}
        doses = Doses(**{n: _pad_rows(x, float(n == "compartment")) for n, x in columns.items()})
    covariates = {
        name: torch.cat([c.covariates[name] for c in cohorts]) for name in first.covariates
    }
    return Cohort(series, doses, covariates, Labels(x for c in cohorts for x in c.ids), varying)


def _form(cohort: Cohort) -> dict[str, object]:
    return {
        "series": sorted(cohort.series),
        "covariates": sorted(cohort.covariates),
        "time-varying covariates": sorted(cohort.time_varying),
        "doses": cohort.doses is not None,
    }


def _end_to_end(parts: Sequence[Series]) -> Series:
    return Series(
        _pad_rows([s.times for s in parts], None),
        _pad_rows([s.values for s in parts], 0.0),
        _pad_rows([s.observed for s in parts], False),
    )


def _pad_rows(tensors: Sequence[Tensor], fill: float | None) -> Tensor:
    length = max(t.shape[1] for t in tensors)

    def pad(t: Tensor) -> Tensor:
        short = length - t.shape[1]
        if fill is None:
            tail = t[:, -1:].expand(-1, short)
        else:
            tail = torch.full((len(t), short, *t.shape[2:]), fill, dtype=t.dtype, device=t.device)
        return torch.cat([t, tail], 1)

    return torch.cat([pad(t) for t in tensors])
