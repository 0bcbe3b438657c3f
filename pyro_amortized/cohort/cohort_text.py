"""A cohort in words: what ``print(cohort)`` shows."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from .doses import Doses
from .series import Series


def cohort_rows(
    series: Mapping[str, Series],
    doses: Doses | None,
    covariates: Mapping[str, Tensor],
    time_varying: Mapping[str, Series],
    categories: Mapping[str, Sequence[str]],
) -> list[tuple[str, str]]:
    """Name and description of every part of a cohort."""
    rows = [(name, _series_text(x)) for name, x in series.items()]
    if doses is not None:
        rows.append(("doses", _doses_text(doses)))
    for name, x in covariates.items():
        names = categories.get(name)
        rows.append((f"covariate {name}", _counts(x, names) if names else _range(x)))
    rows += [(f"time-varying {name}", _series_text(x)) for name, x in time_varying.items()]
    return rows


def title(ids: Sequence[str]) -> str:
    """Number and labels of the individuals."""
    first = ", ".join(ids[:3])
    labels = first if len(ids) <= 3 else f"{first}, ..., {ids[-1]}"
    noun = "individual" if len(ids) == 1 else "individuals"
    return f"{len(ids)} {noun} ({labels})"


def _series_text(series: Series) -> str:
    observed = series.observed
    per_individual = observed.flatten(1).sum(1)
    parts = [f"{int(observed.sum())} values"]
    if series.values.dim() == 3:
        parts.append(f"{series.values.shape[-1]} channels")
    parts.append(f"{_number_range(per_individual)} per individual")
    if bool(observed.any()):
        parts.append(f"times {_range(series.times[series.present])}")
        parts.append(f"values {_range(series.values[observed])}")
    return ", ".join(parts)


def _doses_text(doses: Doses) -> str:
    given = doses.given
    kinds = list(_dose_kinds(doses))
    amounts = f", amounts {_range(doses.amounts[given])}" if bool(given.any()) else ""
    per_individual = _number_range(given.sum(1))
    return f"{int(given.sum())}, {per_individual} per individual{amounts}" + "".join(kinds)


def _dose_kinds(doses: Doses) -> Iterator[str]:
    """Numbers of infusions, steady states and resets, where there are any."""
    is_infusion = (doses.durations > 0) | (doses.rates != 0)
    kinds = {
        "infusions": is_infusion,
        "steady states": doses.steady_state > 0,
        "resets": doses.reset,
    }
    for name, where in kinds.items():
        number = int((where & doses.given).sum())
        if number:
            yield f", {number} {name}"


def _counts(x: Tensor, names: Sequence[str]) -> str:
    """Number of individuals of each category."""
    return ", ".join(f"{name} ({int((x == k).sum())})" for k, name in enumerate(names))


def _number_range(x: Tensor) -> str:
    low, high = int(x.min()), int(x.max())
    return str(low) if low == high else f"{low} to {high}"


def _range(x: Tensor) -> str:
    if x.numel() == 0:
        return "none"
    low, high = float(x.min()), float(x.max())
    is_whole = bool((x == x.round()).all()) and bool(torch.isfinite(x).all())
    text = [f"{v:.0f}" if is_whole and abs(v) < 1e6 else f"{v:.4g}" for v in (low, high)]
    return text[0] if text[0] == text[1] else f"{text[0]} to {text[1]}"
