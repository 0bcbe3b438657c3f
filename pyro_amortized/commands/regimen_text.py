r"""Regimens and numbers as words of the command line.

A regimen is an amount and what follows it in any order::

    100                                     a single dose
    100 every 12 x 7                        seven doses
    100 every 12 x 7 loading 200            the first one is 200
    5 per weight every 24 steady-state      5 units per unit of the covariate, at steady state
    500 over 0.5 every 8 x 9 into 2         infusions of half a time unit into compartment 2

Several plans are added by ``+``: ``100 every 24 x 7 + 50 every 24 x 7 at 8``. A name may stand
before it: ``"twice a day=100 every 12 x 7"``.
"""

import re
from typing import Any

from ..errors import SettingError
from ..nlme.regimens import Regimen, regimen

# Word, argument of `nlme.regimen`, and the kind of what follows it.
WORDS: dict[str, tuple[str, type]] = {
    "every": ("interval", float),
    "x": ("num", int),
    "over": ("duration", float),
    "loading": ("loading", float),
    "into": ("compartment", int),
    "at": ("start", float),
    "per": ("per", str),
}
STEADY_STATE = "steady-state"


def named_regimen(text: str) -> tuple[str, Regimen]:
    r"""The name of a regimen, by default what it is, and the regimen.

    Raises:
        SettingError: The text is no regimen.

    Example:
        >>> named_regimen("low=100 every 12 x 7")
        ('low', Regimen(100 every 12, 7 doses))
    """
    name, sign, plan = text.partition("=")
    made = regimen_from(plan if sign else text)
    return (name.strip() if sign else made.label), made


def regimen_from(text: str) -> Regimen:
    r"""A regimen from its words; several plans are added by ``+``.

    Raises:
        SettingError: The text is no regimen.

    Example:
        >>> regimen_from("100 every 12 x 3 loading 200")
        Regimen(200, then 100 every 12, 3 doses)
    """
    plans = re.split(r"\s\+\s", text)
    if len(plans) > 1:
        first, *others = (regimen_from(plan) for plan in plans)
        return sum(others, first)
    parts = re.sub(r"\bx(?=\d)", "x ", text).split()
    options: dict[str, Any] = {}
    try:
        amount = float(parts[0])
        place = 1
        while place < len(parts):
            word = parts[place]
            if word == STEADY_STATE:
                options["steady_state"] = True
                place += 1
                continue
            name, kind = WORDS[word]
            options[name] = kind(parts[place + 1])
            place += 2
    except (IndexError, KeyError, ValueError):
        raise SettingError(
            f"The regimen is {text!r}.",
            f"an amount, then any of the words {[*WORDS, STEADY_STATE]} with a value each.",
            'pass for example "100 every 12 x 7 loading 200".',
        ) from None
    return regimen(amount, **options)


def numbers_from(text: str, option: str) -> list[float]:
    r"""Numbers that are separated by commas.

    Raises:
        SettingError: A part is no number.
    """
    try:
        return [float(x) for x in text.split(",") if x.strip()]
    except ValueError:
        raise SettingError(
            f"{option} is {text!r}.", "numbers, separated by commas.", f"correct {option}."
        ) from None


def two_numbers(text: str, option: str) -> tuple[float, float]:
    r"""Two numbers that are separated by a comma.

    Raises:
        SettingError: There are not two.
    """
    found = numbers_from(text, option)
    if len(found) != 2:
        raise SettingError(f"{option} is {text!r}.", "two numbers.", f"correct {option}.")
    return found[0], found[1]


def values_from(text: str, option: str) -> dict[str, float]:
    r"""Numbers by name: ``weight=70,age=40``.

    Raises:
        SettingError: A part is not of the form NAME=NUMBER.
    """
    values = {}
    for part in (x for x in text.split(",") if x.strip()):
        name, sign, value = part.partition("=")
        found = numbers_from(value, option)
        if not sign or len(found) != 1:
            raise SettingError(
                f"{option} has the part {part!r}.", "NAME=NUMBER.", f"correct {option}."
            )
        values[name.strip()] = found[0]
    return values
