"""A finding of one test, the verdict on a family of them, and regressions on every variable."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from ...cohort import Cohort
from ..check_results import P_VALUES, Check
from .compared_variables import variables_of_design
from .variable_tests import (
    columns_of,
    contrast,
    dependence_p_value,
    known_among,
    regression_p_value,
)


@dataclass(frozen=True)
class FindingSettings:
    r"""When variables are compared, and what is named.

    Args:
        min_individuals: Fewest individuals that are compared.
        max_named: Most findings that are named.
    """

    min_individuals: int = 8
    max_named: int = 3


FINDINGS = FindingSettings()


class Finding(NamedTuple):
    """One test: its p-value, what it means in words, and what to do."""

    p_value: float
    words: str
    advice: str


def check_of_findings(name: str, findings: list[Finding]) -> Check:
    """The verdict on the family, by Bonferroni."""
    num, ordered = len(findings), sorted(findings)
    p_value = min(1.0, num * ordered[0].p_value)
    status = P_VALUES.status(p_value)
    words = f"No deviation was found in {num} {'test' if num == 1 else 'tests'}."
    if status != "passed":
        found = [x for x in ordered if num * x.p_value < P_VALUES.look][: FINDINGS.max_named]
        named = "; ".join(f"{x.words} (p = {x.p_value:.1g})" for x in found)
        words = f"Found: {named}. {' '.join(dict.fromkeys(x.advice for x in found))}"
    return Check(name, status, p_value, words, "model", num)


def _of_columns(scores: np.ndarray, columns: np.ndarray) -> float:
    return regression_p_value(scores, np.column_stack([np.ones(len(columns)), columns]))


def _two_digits(size: float) -> str:
    return f"{size:.2f}"


class Phrases(NamedTuple):
    r"""What is said of a dependence on a variable.

    Args:
        words: The finding, with places for the side, the size, and where.
        advice: What to do.
        sides: Words for larger and smaller numbers.
        size: A positive difference or slope in words.
    """

    words: str
    advice: str
    sides: tuple[str, str] = ("higher", "lower")
    size: Callable[[float], str] = _two_digits


def against_variables(
    scores: np.ndarray,
    own: np.ndarray,
    cohort: Cohort,
    phrases: Phrases,
    *,
    levels_only: bool = False,
) -> list[Finding]:
    """Regressions of one number of some individuals on every variable of the cohort.

    Args:
        scores: The numbers, shape ``(individual,)``.
        own: Rows of these individuals.
        cohort: The data.
        phrases: What is said.
        levels_only: Whether quantities are left out.
    """
    findings = []
    for variable in variables_of_design(cohort):
        if levels_only and not variable.levels:
            continue
        known, used = known_among(variable, own)
        num = int(known.sum())
        if num < columns_of(variable, used).shape[1] + 1 + FINDINGS.min_individuals:
            continue
        found = contrast(scores[known], np.ones(num), variable, used)
        p_value = dependence_p_value(variable, used, partial(_of_columns, scores[known]))
        size = phrases.size(abs(found.slope))
        words = phrases.words.format(phrases.sides[int(found.slope < 0)], size, found.where)
        findings.append(Finding(p_value, words, phrases.advice))
    return findings
