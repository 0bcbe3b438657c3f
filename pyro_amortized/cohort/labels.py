r"""Labels of individuals: each names one, unless individuals were picked more than once."""

from collections import Counter
from collections.abc import Iterable

from ..errors import CohortError


class Labels(tuple[str, ...]):
    r"""Labels that are known to be in order, among them those of individuals that were picked more
    than once.

    ``numbered`` says that nobody gave them: they are numbers 1, 2, ... and may be given anew.
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
    r"""The labels of ``num`` individuals: those given, or numbers.

    Raises:
        CohortError: A label that a user gave names two individuals.
    """
    if isinstance(given, Labels) and given:
        return given
    labels = tuple(str(x) for x in given)
    if not labels:
        return Labels.of((str(i + 1) for i in range(num)), numbered=True)
    check_unique(labels)
    return Labels.of(labels)


def are_default_labels(labels: tuple[str, ...]) -> bool:
    """Whether nobody gave the labels."""
    return isinstance(labels, Labels) and labels.numbered


def check_unique(labels: Iterable[str]) -> None:
    r"""Raise if a label occurs twice.

    Raises:
        CohortError: It does.
    """
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise CohortError(
            f"Labels that name more than one individual: {', '.join(map(repr, twice[:5]))}.",
            "a label of its own for every individual.",
            "pass other `ids=`, for instance with the name of the study in front.",
        )
