r"""Checks of the arguments of public functions: counts, numbers, classes, models, seeds.

Each check raises a :class:`~pyro_amortized.errors.SettingError`, or the class that the caller
names. :func:`shortened` keeps long values out of messages.
"""

import math
from typing import Any

from torch import Generator

from ..errors import AmortizedError, SettingError

MAX_SHOWN = 80  # characters of a value in a message: about one line


def check_count(
    name: str,
    value: Any,
    *,
    least: int = 1,
    most: int | None = None,
    error: type[AmortizedError] = SettingError,
) -> None:
    r"""Raise unless an argument is a whole number in a range.

    Args:
        name: Name of the argument.
        value: What was passed.
        least: Smallest number that is allowed.
        most: Largest number that is allowed. Default: no limit.
        error: Class of the error.

    Example:
        >>> check_count("num_draws", 2.5, least=25)
        Traceback (most recent call last):
        ...
        pyro_amortized.errors.SettingError: `num_draws` is 2.5.
        Expected: a whole number, at least 25.
        To fix: pass for example `num_draws=25`.
    """
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not (is_integer and value >= least and (most is None or value <= most)):
        limit = f"at least {least}" + ("" if most is None else f" and at most {most}")
        raise error(
            f"`{name}` is {value!r}.",
            f"a whole number, {limit}.",
            f"pass for example `{name}={least}`.",
        )


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    with_low: bool = True,
    with_high: bool = True,
    error: type[AmortizedError] = SettingError,
) -> None:
    r"""Raise unless an argument is a number in an interval.

    Args:
        name: Name of the argument.
        value: What was passed.
        low: Lower end.
        high: Upper end.
        with_low: Whether the lower end is allowed.
        with_high: Whether the upper end is allowed.
        error: Class of the error.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = is_number and (
        (low <= value if with_low else low < value)
        and (value <= high if with_high else value < high)
    )
    if not (inside and math.isfinite(value)):
        ends = f"{'at least' if with_low else 'larger than'} {low:g}"
        if high < math.inf:
            ends += f" and {'at most' if with_high else 'smaller than'} {high:g}"
        raise error(f"`{name}` is {value!r}.", f"a number, {ends}.", f"correct `{name}=`.")


def check_is(
    name: str,
    value: Any,
    kind: type | tuple[type, ...],
    fix: str,
    error: type[AmortizedError] = SettingError,
) -> None:
    r"""Raise unless an argument is an instance of a class.

    Args:
        name: Name of the argument.
        value: What was passed.
        kind: The class, or several.
        fix: What the user should do, for the message.
        error: Class of the error.

    Example:
        >>> check_is("cohort", [1.0], dict, "pass a dictionary.")
        Traceback (most recent call last):
        ...
        pyro_amortized.errors.SettingError: `cohort` is a list.
        Expected: a dict.
        To fix: pass a dictionary.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(dict.fromkeys(k.__name__ for k in kinds))
        found = _with_article(type(value).__name__)
        # A value that is often passed in place of another says what it has for the purpose.
        hint = getattr(value, "use_instead", None)
        fix = f"{fix.removesuffix('.')}; {hint}" if isinstance(hint, str) else fix
        raise error(f"`{name}` is {found}.", f"{_with_article(expected)}.", fix)


def _with_article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def check_program(model: Any, error: type[AmortizedError] = SettingError) -> None:
    """Raise unless a model can be called."""
    if not callable(model):
        raise error(
            f"The model is a {type(model).__name__}, which is not callable.",
            "a Pyro model: a function of a cohort.",
            "pass the function itself, `train(model, cohort)`.",
        )


def check_seed(seed: Any, error: type[AmortizedError] = SettingError) -> None:
    """Raise unless a seed is a whole number, 0 or larger, or a ``torch.Generator``."""
    is_integer = isinstance(seed, int) and not isinstance(seed, bool)
    if not (isinstance(seed, Generator) or (is_integer and 0 <= seed < 2**63)):
        raise error(
            f"`seed` is {seed!r}.", "an integer, 0 or larger.", "pass for example `seed=1`."
        )


def shortened(text: str) -> str:
    """The text of a value as messages show it: its beginning where it is long.

    Example:
        >>> len(shortened(str(list(range(1000)))))
        80
    """
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
