"""Covariates and series by name, with an error that says which names there are."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..errors import CohortError

Value = TypeVar("Value")
# Endings of the series with limits of quantification, and the column of a table that gives them.
LIMIT_COLUMNS = {"_low": "LLOQ", "_high": "ULOQ", "_floor": "LIMIT"}


class UnknownNameError(CohortError, KeyError):
    """A name that a cohort does not have. It is a ``KeyError``, too, as of any mapping."""


class NamedParts(dict[str, Value]):
    r"""Parts of a cohort by name.

    Args:
        parts: The parts.
        kind: What they are, for the message: ``"covariate"``.
    """

    def __init__(self, parts: Mapping[str, Value], kind: str) -> None:
        super().__init__(parts)
        self.kind = kind

    def __missing__(self, name: object) -> Value:
        raise unknown_name(self.kind, name, self)


def unknown_name(kind: str, name: object, names: Iterable[str]) -> UnknownNameError:
    """The error about a name that is not among the names of a cohort."""
    ending = next((x for x in LIMIT_COLUMNS if isinstance(name, str) and name.endswith(x)), None)
    fix = f"check the name, or pass it when the cohort is made: `{_argument(kind)}`."
    if ending is not None:
        fix = (
            f"give the limit of quantification in a column {LIMIT_COLUMNS[ending]} of the table "
            "(also where no value is censored), or by `read_table(..., lloq=, uloq=)`, or pass it: "
            f"`{_argument(kind)}`."
        )
    return UnknownNameError(f"The cohort has no {kind} {name!r}.", f"one of {sorted(names)}.", fix)


def _argument(kind: str) -> str:
    return {"covariate": "covariates=", "time-varying series": "time_varying="}.get(kind, "series=")
