"""Covariates with one value per individual in a long table, complete or not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas
import torch
from torch import Tensor

from ...cohort import Series
from ...errors import TableError
from .endpoints import IndividualRows
from .table_file import LOG
from .table_source import Mask, Numbers, Table, in_order, is_blank, label
from .table_surprises import log_codes


def constant_covariate(
    table: Table, name: str, rows: IndividualRows, order: list[str], names: Sequence[str] = ()
) -> Tensor:
    """One value per individual; missing ones are filled with the value of the other rows.

    ``names`` are those of the categories of the covariate.
    """
    check_column(table, name, "covariates")
    known = _first_values(table, name, rows, order, names)
    for r, who, value in zip(rows, order, known, strict=True):
        if np.isnan(value):
            fix = (
                "fill one in (for instance the median of the others), leave the individual out, or "
                f"pass `incomplete=[{name!r}]` (not among `covariates=`) and make the covariate a "
                "site of the model."
            )
            if names:
                fix = (
                    'fill one in, also a category of its own ("unknown"), or leave the individual '
                    "out."
                )
            raise table.error(
                int(r[0]), name, f"a value for individual {who}, which has none in any row.", fix
            )
    return torch.tensor(known, dtype=torch.float64)


def _blanks_and_texts(table: Table, name: str) -> tuple[Mask, Mask]:
    """The rows in which a column has no entry, and those in which it has one that is no number."""
    blank = table.frame[name].map(is_blank).to_numpy(dtype=bool)
    parsed = pandas.to_numeric(table.frame[name], errors="coerce").to_numpy(dtype=float)
    return blank, np.isnan(parsed) & ~blank


def _has_texts(table: Table, name: str) -> bool:
    """Whether a column has entries, and none of them is a number."""
    blank, texts = _blanks_and_texts(table, name)
    return not blank.all() and bool((blank | texts).all())


def check_no_texts(table: Table, name: str, argument: str) -> None:
    r"""Raise if a column holds the names of categories.

    Raises:
        TableError: It does.
    """
    if _has_texts(table, name):
        texts = [label(x) for x in table.frame[name] if not is_blank(x)]
        raise TableError(
            f"The column {name!r} of `{argument}=` holds texts: {sorted(set(texts))[:5]}.",
            "numbers: categories by name are read for `covariates=` only, where every individual "
            "has one.",
            "number the categories (0, 1, ...); a category that is not known for some individuals "
            'can have a name of its own ("unknown") among `covariates=`.',
        )


def with_category_codes(
    table: Table, names: Sequence[str], given: Mapping[str, Sequence[str]]
) -> tuple[Table, dict[str, tuple[str, ...]]]:
    """The table with numbers in place of texts in some columns, and the texts of each.

    A column is one of categories if none of its entries is a number, or if its categories are
    given. Those that are not given are in the order that a DataFrame declares, or sorted.

    Raises:
        TableError: Categories of another column, or an entry that is none of them.
    """
    _check_given(given, names)
    found: dict[str, tuple[str, ...]] = {}
    frame = table.frame
    for name in names:
        if name not in table or not (name in given or _has_texts(table, name)):
            continue
        blank = frame[name].map(is_blank).to_numpy(dtype=bool)
        texts = [None if b else label(x) for x, b in zip(frame[name], blank, strict=True)]
        present = in_order({x for x in texts if x is not None})
        found[name] = tuple(given.get(name) or table.categories.get(name) or present)
        unknown = [i for i, x in enumerate(texts) if x is not None and x not in found[name]]
        if unknown:
            raise table.error(
                unknown[0],
                name,
                f"one of {list(found[name])}, as `categories=` has them.",
                "correct the entry, or add it to `categories=`.",
            )
        codes = [np.nan if x is None else float(found[name].index(x)) for x in texts]
        frame = frame.assign(**{name: codes})
        LOG.warning(
            "%s has categories: %s.",
            name,
            ", ".join(f"{k} = {x}" for k, x in enumerate(found[name])),
        )
        if len({x.casefold() for x in found[name]}) < len(found[name]):
            LOG.warning("Some categories of %s differ in capitals only: are they the same?", name)
    return (replace(table, frame=frame), found) if found else (table, found)


def _check_given(given: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
    """Check that categories which the user gives are lists of names of covariates' categories."""
    wrong = [name for name in given if name not in names]
    if wrong:
        raise TableError(
            f"`categories=` has {wrong[0]!r}, which is not among the covariates.",
            f"some of {list(names)}.",
            f"add it to `covariates=`, or correct the name: {{{wrong[0]!r}: [...]}}.",
        )
    for name, x in given.items():
        if isinstance(x, str) or not all(isinstance(part, str) for part in x) or not x:
            raise TableError(
                f"The categories of {name!r} are {x!r}.",
                "a list of their names, in the order of their numbers.",
                f"pass for instance {{{name!r}: ['A', 'B']}}.",
            )


def incomplete_covariate(
    table: Table, name: str, rows: IndividualRows, order: list[str], begin: Numbers
) -> Series:
    """A covariate that some individuals lack, as a series of one value at the begin of each.

    Raises:
        TableError: No individual has a value.
    """
    check_column(table, name, "incomplete")
    check_no_texts(table, name, "incomplete")
    known = np.array(_first_values(table, name, rows, order))
    missing = np.isnan(known)
    if missing.all():
        raise table.error(
            int(rows[0][0]), name, "a value for one individual or more.", "leave the column out."
        )
    LOG.warning("%s is missing for %d of %d individuals.", name, int(missing.sum()), len(known))
    values = torch.tensor(known, dtype=torch.float64).unsqueeze(-1)
    return Series(torch.tensor(begin, dtype=torch.float64).unsqueeze(-1), values)


def _check_one_kind(table: Table, name: str) -> None:
    """Raise where a covariate has texts in some rows and numbers in others."""
    blank, texts = _blanks_and_texts(table, name)
    if texts.any() and not (blank | texts).all():
        raise table.error(
            int(np.flatnonzero(texts)[0]),
            name,
            "a number, because other rows have numbers; or texts in all rows, which are names of "
            "categories.",
            "correct the entry, or name all categories by texts.",
        )


def _first_values(
    table: Table, name: str, rows: IndividualRows, order: Sequence[str], names: Sequence[str] = ()
) -> list[float]:
    """The value of each individual, NaN where it has none; two different ones are an error."""
    _check_one_kind(table, name)
    values, known = table.numbers(name), []
    for r, who in zip(rows, order, strict=True):
        recorded = r[~np.isnan(values[r])]
        first = float(values[recorded[0]]) if len(recorded) else float("nan")
        changed = recorded[values[recorded] != first]
        if len(changed):
            raise _two_values(table, name, who, (int(recorded[0]), int(changed[0])), names)
        known.append(first)
    present = [x for x in known if x == x]
    log_codes(name, np.array(present), [w for w, x in zip(order, known, strict=True) if x == x])
    return known


def _two_values(
    table: Table, name: str, who: str, rows: tuple[int, int], names: Sequence[str]
) -> TableError:
    """The error for two different values of one individual, in the words of the table."""
    first, other = (float(table.numbers(name)[row]) for row in rows)
    shown, found, repeats = f"{first:g}", repr(other), ""
    varies = f"pass `time_varying=[{name!r}]`"
    if names:
        shown, found = repr(names[int(first)]), repr(names[int(other)])
        varies = "number the categories and " + varies
        repeats = (
            f" If labels of individuals repeat within {name}, make them unique, for instance "
            f'`frame["ID"] = frame["{name}"].astype(str) + "/" + frame["ID"].astype(str)`.'
        )
    return TableError(
        f"Row {table.labels[rows[1]]}, column {name} is {found}.",
        f"one value for individual {who}, whose first value is {shown}.",
        f"use the baseline value, or {varies}.{repeats}",
    )


def check_column(table: Table, name: str, argument: str) -> None:
    r"""Raise unless the table has a column.

    Raises:
        TableError: It has none.
    """
    if name not in table:
        alike = [x for x in table.frame.columns if x.casefold() == str(name).casefold()]
        raise TableError(
            f"The table has no column {name!r} (it has {list(table.frame.columns)}).",
            "a column for every covariate.",
            f"write {alike[0]!r} in `{argument}=`: names of covariates keep their capitals."
            if alike
            else f"check the spelling in `{argument}=`.",
        )
