r"""The result of one check of the battery, and the verdict on several p-values together.

Of :math:`m` tests of one kind, the smallest p-value times :math:`m` (Bonferroni) decides: it is the
probability, at most, that a right guide or model gives so small a p-value in one of the tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "look", "failed"]
About = Literal["inference", "model"]


@dataclass(frozen=True)
class PValueSettings:
    r"""Limits of the p-value of all tests of one kind together.

    Args:
        failed: Below it a check fails. With about ten such checks, a right guide and a right model
            fail in at most one of a hundred runs.
        look: Below it a check asks for a look.
    """

    failed: float = 1e-3
    look: float = 1e-2


DEFAULTS = PValueSettings()


@dataclass(frozen=True)
class Check:
    r"""The result of one check.

    Args:
        name: What was checked.
        status: ``"passed"``, ``"look"`` (a look at it is advised), or ``"failed"``.
        value: The number that decided.
        words: What the number means, and what to do if the check did not pass.
        about: What is in doubt if the check did not pass: the inference, or the model.
    """

    name: str
    status: Status
    value: float
    words: str
    about: About = "inference"


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
    status: Status = "passed"
    if p_value < DEFAULTS.look:
        status = "failed" if p_value < DEFAULTS.failed else "look"
    words = "No deviation was found."
    if status != "passed":
        words = f"{finding.format(worst)} {advice}"
    return Check(name, status, p_value, words, about)
