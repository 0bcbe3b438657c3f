"""The result of a model search: the path, the model that was chosen, and how stable the choice
is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas
from torch import Tensor

from ...model.extended_program import ExtendedProgram, Extension
from ...population.results.fit_result import PopulationFit
from ...runtime.text_table import text_table
from .program_lines import program_lines
from .search_settings import SearchRule

Action = Literal["start", "structure", "add", "remove", "exchange"]


@dataclass(frozen=True)
class SearchStep:
    r"""One fitted model of a search.

    Args:
        action: What was tried.
        term: The term, in words.
        minus2ll: -2LL of the fitted model.
        difference: Fall of -2LL when a term is added, rise when it is removed, on common draws; of
            a structure, the fall from the best one before it.
        mc_error: Monte Carlo standard error of the difference.
        freedom: Number of parameters that are added or removed.
        p_value: P-value of the likelihood-ratio test; NaN for the start and other structures.
        score: Fall or rise that the quadratic approximation promised before the fit.
        accepted: Whether the model is the next one of the path.
        variance: Unexplained variance of every individual parameter, by name: the mean over the
            individuals of its variance in the population, unconstrained.
        reason: Why it was accepted or refused.
    """

    action: Action
    term: str
    minus2ll: float
    difference: float = math.nan
    mc_error: float = math.nan
    freedom: int = 0
    p_value: float = math.nan
    score: float = math.nan
    accepted: bool = False
    variance: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class CandidateTest:
    r"""The score test of a term that is not in the chosen model, or the Wald test of one that is.

    Args:
        term: The term, in words.
        included: Whether the model has it.
        statistic: Rise or fall of -2LL that the quadratic at the chosen model promises; NaN where
            it is not known.
        mc_error: Its Monte Carlo standard error; zero for a Wald test.
        freedom: Number of parameters.
        p_value: P-value of this test alone.
        frequency: Part of the bootstrapped cohorts in whose path the term is included; NaN where it
            is not known.
    """

    term: str
    included: bool
    statistic: float
    mc_error: float
    freedom: int
    p_value: float
    frequency: float


@dataclass(frozen=True, eq=False)
class ModelSearch:
    r"""The result of a search. Made by :func:`~pyro_amortized.search`.

    Args:
        start: The fit that the search began with.
        best: The fit of the chosen model.
        extension: What its program has besides that of the user.
        path: Every fitted model, in order; rows that were refused included.
        tests: The tests at the chosen model.
        num_tests: Number of tests that were made, score tests and likelihood ratios together.
        skipped: What was not tested, and why.
        rule: How the search decided.
        structure: Name of the chosen structure, or "" for the program of the fit.
        seconds: Wall time.
    """

    start: PopulationFit
    best: PopulationFit
    extension: Extension
    path: tuple[SearchStep, ...]
    tests: tuple[CandidateTest, ...]
    num_tests: int
    skipped: Mapping[str, str]
    rule: SearchRule
    structure: str
    seconds: float

    @property
    def model(self) -> ExtendedProgram:
        """The program of the chosen model, which can be fitted, simulated and saved like that of
        the user.
        """
        model = self.best.model
        return model if isinstance(model, ExtendedProgram) else ExtendedProgram(model)

    @property
    def held(self) -> dict[str, Tensor]:
        """The values of the sites that the chosen model holds, ``fixed=`` of a further fit."""
        return {name: self.best.estimates[name] for name in self.best.fixed}

    @property
    def lines(self) -> str:
        """What to write into the program, in Python."""
        return program_lines(self.extension, self.best)

    @property
    def chance(self) -> float:
        """Number of false terms that so many tests would find by chance at the p-value of the rule,
        if they were independent; NaN for other criteria.
        """
        count = len(self.tests)
        return count * self.rule.forward if self.rule.criterion == "p" else float("nan")

    def table(self) -> pandas.DataFrame:
        """One row per fitted model; the columns ``variance of ...`` are unexplained variances."""
        rows = []
        for step in self.path:
            row = {
                "action": step.action,
                "term": step.term,
                "-2LL": step.minus2ll,
                "difference": step.difference,
                "MC error": step.mc_error,
                "df": step.freedom,
                "p": step.p_value,
                "score": step.score,
                "accepted": step.accepted,
                "reason": step.reason,
            }
            rows.append(row | {f"variance of {n}": x for n, x in step.variance.items()})
        return pandas.DataFrame(rows)

    def test_table(self) -> pandas.DataFrame:
        """One row per term that was tested at the chosen model, the included ones first."""
        columns = ["term", "included", "statistic", "MC error", "df", "p", "frequency"]
        rows = [
            (t.term, t.included, t.statistic, t.mc_error, t.freedom, t.p_value, t.frequency)
            for t in self.tests
        ]
        return pandas.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        return "\n\n".join(
            part
            for part in (
                self.headline,
                text_table(self.path_rows()),
                text_table(self.test_rows()) if self.tests else "",
                self._skipped(),
                f"to write into the program:\n{self.lines}" if self.extension.terms else "",
            )
            if part
        )

    def __repr__(self) -> str:
        return f"ModelSearch: {self.headline}"

    @property
    def headline(self) -> str:
        """What was found, by which rule, and by how many tests, in two lines."""
        terms = [term.name for term in self.extension.terms]
        found = ", ".join(terms) if terms else "nothing was added"
        structure = f"{self.structure}; " if self.structure else ""
        by = {
            "p": f"p < {self.rule.forward:g}",
            "bic": "BIC",
            "penalised": "a penalised path and BIC",
        }[self.rule.criterion]
        chance = "" if self.chance != self.chance else f", {self.chance:.1f} false by chance"
        return (
            f"chosen by {by}: {structure}{found}\n"
            f"-2LL {self.start.minus2ll:.2f} -> {self.best.minus2ll:.2f}; {self.num_tests} tests, "
            f"{len(self.tests)} terms{chance}"
        )

    def _skipped(self) -> str:
        return "\n".join(f"not tested: {name} ({why})" for name, why in self.skipped.items())

    def path_rows(self) -> list[tuple[str, ...]]:
        """The path as rows of text, a header first."""
        names = list(self.path[0].variance)
        head = ("", "term", "-2LL", "difference", "MC error", "df", "p", "")
        rows = [(*head, *(f"var {n}" for n in names))]
        for step in self.path:
            is_start = step.action == "start"
            rows.append(
                (
                    step.action,
                    step.term,
                    f"{step.minus2ll:.2f}",
                    "" if is_start else f"{step.difference:.2f}",
                    "" if is_start else f"{step.mc_error:.2f}",
                    "" if is_start else str(step.freedom),
                    "" if step.p_value != step.p_value else f"{step.p_value:.2g}",
                    step.reason,
                    *(f"{step.variance[n]:.4f}" if n in step.variance else "" for n in names),
                )
            )
        return rows

    def test_rows(self) -> list[tuple[str, ...]]:
        """The tests at the chosen model as rows of text, a header first."""
        rows: list[tuple[str, ...]] = [
            ("term", "in the model", "statistic", "df", "p", "inclusion frequency")
        ]
        for test in self.tests:
            unknown = test.frequency != test.frequency
            rows.append(
                (
                    test.term,
                    "yes" if test.included else "no",
                    "" if test.statistic != test.statistic else f"{test.statistic:.2f}",
                    str(test.freedom),
                    "" if test.p_value != test.p_value else f"{test.p_value:.2g}",
                    "" if unknown else f"{test.frequency:.2f}",
                )
            )
        return rows
