"""Factors between units that are often mixed up in tables."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class UnitSettings:
    r"""Which factors are named.

    Args:
        factors: Factors and their names.
        max_distance: Difference of a logarithm from that of a factor for which it is named.
    """

    factors: tuple[tuple[float, str], ...] = (
        (60.0, "minutes and hours"),
        (7.0, "days and weeks"),
        (24.0, "hours and days"),
        (10.0, "a factor of ten"),
        (100.0, "a factor of a hundred"),
        (1000.0, "milligrams and micrograms, or millilitres and litres"),
        (1e6, "a factor of a million"),
    )
    max_distance: float = 0.25


UNITS = UnitSettings()


def unit_words(log_ratio: float) -> str:
    """The units that may have been mixed up, if a ratio is about their factor; else empty.

    Example:
        >>> unit_words(4.0)
        'a factor of about 60: minutes and hours?'
        >>> unit_words(1.0)
        ''
    """
    near = [
        (abs(abs(log_ratio) - math.log(factor)), factor, words) for factor, words in UNITS.factors
    ]
    distance, factor, words = min(near)
    return f"a factor of about {factor:g}: {words}?" if distance < UNITS.max_distance else ""
