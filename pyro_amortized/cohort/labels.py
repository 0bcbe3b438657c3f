r"""Labels of the individuals of a cohort.

A label names one individual. Only where individuals were selected more than once, for example by
resampling, does a label occur more than once.
"""

from collections import Counter
from collections.abc import Iterable

from ..errors import CohortError

MAX_LABELS_IN_MESSAGE = 5  # a message about a table of thousands of rows stays readable


class Labels(tuple[str, ...]):
    r"""Labels that were checked before. They may repeat where individuals were selected repeatedly.

    ``numbered`` is True where the user gave no labels. They are then the numbers 1, 2, ..., and
    :func:`~pyro_amortized.concatenate` numbers the individuals anew.
    """

    numbered: bool = False

    @classmethod
    def of(cls, labels: Iterable[str], numbered: bool = False) -> "Labels":
        """Labels from text."""
        made = cls(labels)
        made.numbered = numbered
        return made

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Labels.of, (tuple(self), self.numbered)


def make_labels(given: Iterable[object], num: int) -> Labels:
    r"""The labels of ``num`` individuals: those given, or the numbers from 1 on.

    Args:
        given: Labels of the user, one per individual, or none. :class:`Labels` are not checked.
        num: Number of individuals.

    Raises:
        CohortError: A label that the user gave names more than one individual.
    """
    if isinstance(given, Labels) and given:
        return given
    labels = tuple(str(x) for x in given)
    if not labels:
        return Labels.of((str(i + 1) for i in range(num)), numbered=True)
    check_unique(labels)
    return Labels.of(labels)


def are_default_labels(labels: tuple[str, ...]) -> bool:
    """True where the user gave no labels, so that the individuals are numbered."""
    return isinstance(labels, Labels) and labels.numbered


def check_unique(labels: Iterable[str]) -> None:
    r"""Raise if a label occurs more than once.

    Raises:
        CohortError: A label occurs more than once.
    """
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        shown = ", ".join(map(repr, repeated[:MAX_LABELS_IN_MESSAGE]))
        raise CohortError(
            f"Labels that name more than one individual: {shown}.",
            "a different label for every individual.",
            "pass other `ids=`, for example with the name of the study before the number.",
        )
