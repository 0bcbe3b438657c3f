r"""The columns of a long table, parsed and checked."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .clock_times import times
from .table_file import LOG
from .table_source import NUMERIC, Mask, Numbers, Table

ROUNDED = 1e-3  # relative difference of two rates of one infusion that is rounding in the table
MAX_ADDITIONAL = 10_000  # additional doses of one row; each becomes a dose, and takes memory


@dataclass(frozen=True, eq=False)
class Columns:
    r"""The checked columns, one entry per row.

    Args:
        time: Times in the unit of the data.
        number: The numeric columns by name.
        is_observation: EVID 0.
        is_dose: EVID 1 or 4.
        is_reset: EVID 3 or 4.
        has_flags: Whether the table has flags of values below a limit, CENS or BLQ.
    """

    time: Numbers
    number: dict[str, Numbers]
    is_observation: Mask
    is_dose: Mask
    is_reset: Mask
    has_flags: bool = False


def read_columns(table: Table, ids: list[str], unit: str) -> Columns:
    r"""Parse and check all columns.

    Raises:
        TableError: An entry cannot be read, or contradicts another entry of its row.
    """
    number = {name: table.numbers(name, default) for name, default in NUMERIC.items()}
    _without_unlimited_flags(table, number)
    has_amount = number["AMT"] > 0
    is_constant = (number["SS"] > 0) & (number["RATE"] > 0)
    number["EVID"] = np.where(np.isnan(number["EVID"]), has_amount | is_constant, number["EVID"])
    _check_allowed(table, number)
    evid = number["EVID"]
    observation, dose = evid == 0, (evid == 1) | (evid == 4)
    _check_doses(table, number, dose)
    _rates_of_durations(table, number, dose)
    _check_observations(table, number, observation)
    reset, has_flags = (evid == 3) | (evid == 4), "CENS" in table or "BLQ" in table
    return Columns(times(table, ids, unit), number, observation, dose, reset, has_flags)


def _check_allowed(table: Table, number: dict[str, Numbers]) -> None:
    """Check each entry by itself."""
    rules: list[tuple[str, Callable[[Numbers], Mask], str]] = [
        ("EVID", lambda x: ~np.isin(x, (0, 1, 2, 3, 4)), "0, 1, 2, 3 or 4."),
        ("MDV", lambda x: ~np.isin(x, (0, 1)), "0 or 1."),
        ("SS", lambda x: ~np.isin(x, (0, 1, 2)), "0, 1 or 2."),
        ("CENS", lambda x: ~np.isin(x, (-1, 0, 1)), "-1, 0 or 1."),
        ("BLQ", lambda x: ~np.isin(x, (0, 1)), "0 or 1."),
        ("AMT", lambda x: ~(np.isfinite(x) & (x >= 0)), "a finite amount, 0 or more."),
        ("II", lambda x: ~(np.isfinite(x) & (x >= 0)), "a finite interval, 0 or more."),
        (
            "ADDL",
            lambda x: ~(np.isfinite(x) & (x >= 0) & (x <= MAX_ADDITIONAL) & (x % 1 == 0)),
            f"a whole number, {MAX_ADDITIONAL:,} at most.",
        ),
        (
            "RATE",
            lambda x: ~(np.isfinite(x) & ((x >= 0) | (x == -1) | (x == -2))),
            "0 or more, -1 (rate given by the model) or -2 (duration given by the model).",
        ),
        (
            "CMT",
            lambda x: ~(np.isfinite(x) & (x >= 1) & (x % 1 == 0)),
            "1, 2, ...; negative numbers (turn off) and 0 (default) are not supported.",
        ),
        ("DUR", lambda x: ~(np.isfinite(x) & (x >= 0)), "a finite duration, 0 or more."),
        ("DV", np.isinf, "a finite value, or an empty cell."),
        ("LIMIT", np.isinf, "a finite value, or an empty cell."),
        ("LLOQ", np.isinf, "a finite value, or an empty cell."),
        ("ULOQ", np.isinf, "a finite value, or an empty cell."),
    ]
    for name, bad, expected in rules:
        if name in table or name == "EVID":
            table.refuse(bad(number[name]), name, expected, "correct the entry.")


def _check_doses(table: Table, number: dict[str, Numbers], dose: Mask) -> None:
    amount, rate, interval = number["AMT"], number["RATE"], number["II"]
    steady, additional, evid = number["SS"], number["ADDL"], number["EVID"]
    constant = dose & (steady > 0) & (amount == 0) & (rate > 0)
    checks = [
        (
            dose & (amount == 0) & ~constant,
            "AMT",
            "an amount for a dose (EVID 1 or 4); a placebo is EVID 2.",
        ),
        (~dose & (amount > 0), "AMT", "no amount, because the row is not a dose (EVID 0, 2 or 3)."),
        (~dose & (rate != 0), "RATE", "0, because the row is not a dose."),
        (~dose & (steady > 0), "SS", "0, because the row is not a dose."),
        (~dose & (additional > 0), "ADDL", "0, because the row is not a dose."),
        ((steady > 0) & ~constant & (interval <= 0), "II", "an interval for a steady state."),
        ((additional > 0) & (interval <= 0), "II", "an interval for additional doses."),
        (constant & (additional > 0), "ADDL", "0, because a constant infusion is not repeated."),
        # SS 1 discards earlier doses as EVID 4 does, and the two often occur together.
        ((evid == 4) & (steady == 2), "SS", "0 or 1 with EVID 4, which discards earlier doses."),
    ]
    for where, column, expected in checks:
        table.refuse(where, column, expected, "correct the row.")


def _rates_of_durations(table: Table, number: dict[str, Numbers], dose: Mask) -> None:
    """The durations of infusions (DUR, TINF) as rates. A column DUR with values in other rows is
    something else, and is not used.
    """
    duration, amount = number["DUR"], number["AMT"]
    if not (dose & (duration > 0)).any():
        return
    if (~dose & (duration > 0)).any():
        LOG.warning("The column DUR is not used: it has values in rows that are not doses.")
        return
    given = dose & (duration > 0)
    rate = amount / np.where(given, duration, 1.0)
    different = given & (number["RATE"] != 0) & ~np.isclose(number["RATE"], rate, rtol=ROUNDED)
    expected = "AMT / RATE, or an empty cell, because RATE is given as well."
    table.refuse(different, "DUR", expected, "leave out RATE or DUR.")
    number["RATE"] = np.where(given & (number["RATE"] == 0), rate, number["RATE"])
    LOG.warning("The column DUR gives the durations of %d infusions.", int(given.sum()))


def _without_unlimited_flags(table: Table, number: dict[str, Numbers]) -> None:
    """Values with a flag BLQ are taken as not recorded where nothing gives the limit: there is no
    column LLOQ, and the values are not one positive number, which is then the limit.
    """
    if "LLOQ" in table:
        return
    evid, value = number["EVID"], number["DV"]
    observation = np.where(np.isnan(evid), number["AMT"] == 0, evid == 0)
    flagged = (number["BLQ"] == 1) & observation & (number["MDV"] == 0)
    flagged &= ~np.isnan(value) & (value != 0)  # without a value, the limit is asked for
    different = np.unique(value[flagged])
    if len(different) == 0:
        return
    if len(different) == 1 and different[0] > 0:
        text = "The limit of %d values that BLQ flags is their DV, %g: there is no column LLOQ."
        LOG.warning(text, int(flagged.sum()), different[0])
        return
    LOG.warning(
        "%d values are flagged as below a limit (BLQ) that the table does not give, first in row "
        "%s: they are taken as not recorded. Give the limit in a column LLOQ to use them.",
        int(flagged.sum()),
        table.labels[np.flatnonzero(flagged)[0]],
    )
    number["MDV"] = np.where(flagged, 1.0, number["MDV"])


def _check_observations(table: Table, number: dict[str, Numbers], observation: Mask) -> None:
    value, limit, low = number["DV"], number["LIMIT"], number["LLOQ"]
    recorded = observation & (number["MDV"] == 0)
    below, above = recorded & (number["CENS"] == 1), recorded & (number["CENS"] == -1)
    blq = recorded & (number["BLQ"] == 1)
    free = recorded & ~below & ~above & ~blq & ~np.isnan(value)
    limit_of = np.where(np.isnan(low), value, low)
    below_limit = np.where(np.isnan(value) | (value == 0), limit_of, value)
    # A limit of 0 is possible on a logarithmic scale, where other values are negative.
    is_zero = (value == 0) & np.isnan(low)
    zero = (below | blq) & is_zero & (not bool((value[recorded] < 0).any()))
    hidden = observation & (number["MDV"] == 1) & ((number["CENS"] != 0) | (number["BLQ"] == 1))
    if (hidden & ~np.isnan(limit_of)).any() and "CENS" in table:
        LOG.warning(
            "%d values with CENS are not used, because MDV is 1 there, first in row %s. Set MDV to "
            "0 to use them as censored values.",
            int(hidden.sum()),
            table.labels[np.flatnonzero(hidden)[0]],
        )
    checks = [
        (
            zero,
            "DV",
            "the limit of quantification where CENS or BLQ is 1, or a column LLOQ, or `lloq=`.",
        ),
        (below & np.isnan(limit_of), "DV", "the limit where CENS is 1, or a column LLOQ."),
        (above & np.isnan(value), "DV", "the upper limit where CENS is -1."),
        (blq & np.isnan(limit_of), "LLOQ", "a limit (LLOQ, or the value) where BLQ is 1."),
        (below & (limit >= below_limit), "LIMIT", "a lower bound below the value where CENS is 1."),
        (blq & (limit >= limit_of), "LIMIT", "a lower bound below the limit of quantification."),
        (above & ~np.isnan(limit), "LIMIT", "no lower bound where CENS is -1."),
        (blq & (number["CENS"] == -1), "CENS", "0 or 1 where BLQ is 1."),
        (free & (value < low), "DV", "a value at or above its LLOQ, or CENS 1."),
        (free & (value > number["ULOQ"]), "DV", "a value at or below its ULOQ, or CENS -1."),
        (below & (low > value) & (value != 0), "LLOQ", "the value where CENS is 1."),
    ]
    for where, column, expected in checks:
        table.refuse(where, column, expected, "correct the row, or set MDV to 1.")
