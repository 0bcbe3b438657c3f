r"""The result of one check of the battery, and the verdict on several p-values together.

Of :math:`m` tests of one kind, the smallest p-value times :math:`m` (Bonferroni) decides: it is the
probability, at most, that a right guide or model gives so small a p-value in one of the tests.
Several p-values of one hypothesis, those of several posterior draws, are combined by their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Status = Literal["passed", "look", "failed"]
About = Literal["inference", "model"]


@dataclass(frozen=True)
class PValueSettings:
    r"""Limits of the p-value of all tests of one kind together.

    Args:
        failed: Below it a check fails. With about ten such checks, a right guide and a right model
            fail in at most one of a hundred runs.
        look: Below it a check asks for a look: in at most one of twenty runs.
    """

    failed: float = 1e-3
    look: float = 5e-3

    def status(self, p_value: float) -> Status:
        """The status of a check by the p-value of all its tests together."""
        if p_value < self.failed:
            return "failed"
        return "look" if p_value < self.look else "passed"


P_VALUES = PValueSettings()

# Documentation page about the findings of a check, by the beginning of its name.
PAGES: Mapping[str, str] = {
    "ranks": "training",
    "joint coverage": "training",
    "local ranks": "training",
    "efficiency": "training",
    "refinement": "population",
    "influence of parameters": "writing_models",
    "contraction": "writing_models",
    "convergence": "when_it_fails",
    "Pareto k": "when_it_fails",
    "Monte Carlo error": "population",
    "standard errors": "population",
    "data inside": "when_it_fails",
    "units and scale of the data": "from_table",
    "estimates and their prior": "writing_models",
    "identity": "from_table",
    "doses, covariates and times": "from_table",
    "recorded values": "missing_data",
    "recorded times": "endpoints",
    "residuals": "statistical_models",
    "errors": "statistical_models",
    "frequencies": "endpoints",
    "events": "endpoints",
    "what is missing": "missing_data",
    "random effects and recording": "missing_data",
}
OTHER_PAGE = "statistical_models"


@dataclass(frozen=True)
class Check:
    r"""The result of one check.

    Args:
        name: What was checked.
        status: ``"passed"``, ``"look"`` (a look at it is advised), or ``"failed"``.
        value: The number that decided.
        words: What the number means, and what to do if the check did not pass.
        about: What is in doubt if the check did not pass: the inference, or the model.
        num_tests: Number of tests whose smallest p-value, times their number, is ``value``; 0 where
            it is no p-value.
    """

    name: str
    status: Status
    value: float
    words: str
    about: About = "inference"
    num_tests: int = 0

    @property
    def page(self) -> str:
        """Name of the documentation page about what the check finds."""
        names = [name for name in PAGES if self.name.startswith(name)]
        return PAGES[names[0]] if names else OTHER_PAGE

    @property
    def finding(self) -> str:
        """What was found, how sure it is, what to do, and where to read about it, in one line."""
        certainty = ""
        if self.num_tests:
            tests = "one test" if self.num_tests == 1 else f"{self.num_tests} tests together"
            certainty = f", p = {self.value:.1g} of {tests}"
        return (
            f"{self.name} ({self.status}{certainty}): {self.words} See the documentation page "
            f"`{self.page}`."
        )


def combined_p_value(p_values: Sequence[float]) -> float:
    r"""One p-value of several of the same hypothesis, however they depend on each other: e times
    their geometric mean.

    Args:
        p_values: The p-values, for instance of several posterior draws.

    References:
        Vovk, Wang (2020), Combining p-values via averaging, Biometrika 107.

    Example:
        >>> round(combined_p_value([1e-4, 1e-2]), 6), combined_p_value([0.5, 0.6])
        (0.002718, 1.0)
    """
    logarithms = np.log(np.maximum(p_values, 1e-300))
    return float(min(1.0, np.e * np.exp(logarithms.mean())))


def check_p_values(
    name: str, p_values: Mapping[str, float], finding: str, advice: str, about: About = "inference"
) -> Check:
    r"""The verdict on several tests of one kind.

    Args:
        name: What is checked.
        p_values: P-value of each test by its label.
        finding: What a small p-value means, one sentence, in which ``{}`` stands for the label of
            the test.
        advice: What to do about it, one or more sentences.
        about: What is in doubt if the check did not pass.

    Example:
        >>> check_p_values("ranks", {"a": 0.2, "b": 1e-6}, "Ranks of {} deviate.", "Train.").words
        'Ranks of b deviate. Train.'
    """
    worst = min(p_values, key=lambda n: p_values[n])
    p_value = min(1.0, p_values[worst] * len(p_values))
    status, words = P_VALUES.status(p_value), "No deviation was found."
    if status != "passed":
        words = f"{finding.format(worst)} {advice}"
    return Check(name, status, p_value, words, about, len(p_values))
