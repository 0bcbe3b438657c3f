r"""The errors and warnings of the library.

Every message has three parts: what was found, what was expected, and how to fix it. A mistake of
the user raises a subclass of :class:`AmortizedError` in the public function. Numerical trouble of
one individual is never an exception: it is returned with the result, and one
:class:`AmortizedWarning` announces it at the line of the user's code.
"""

import re

# A message as one text. Its own parts are the last ones: an earlier "Expected:" belongs to another
# error that the message quotes. The text that Pyro's trace appends to a message follows them.
MESSAGE = re.compile(
    r"(?P<found>.*)\nExpected: (?P<expected>.*)\nTo fix: (?P<fix>.*?)"
    r"(\n(?P<note> *Trace Shapes:.*))?",
    re.DOTALL,
)


class AmortizedError(ValueError):
    r"""A mistake of the user, described in three parts.

    Other software constructs an exception again from the text of the first one: Pyro's trace does
    so to append the shapes of the sites, and torch's data loader to send it to another process. An
    error that is constructed from one text therefore reads its three parts from that text, and
    what Pyro appended becomes a note.

    Args:
        found: What was found, or the complete message.
        expected: What was expected in its place.
        fix: What to change.

    Example:
        >>> raise AmortizedError("`n` is -1.", "A positive integer.", "pass n=1 or more.")
        Traceback (most recent call last):
        ...
        pyro_amortized.errors.AmortizedError: `n` is -1.
        Expected: A positive integer.
        To fix: pass n=1 or more.
    """

    def __init__(self, found: str, expected: str = "", fix: str = "") -> None:
        parts = None if expected or fix else MESSAGE.fullmatch(found)
        if parts:
            found, expected, fix = parts["found"], parts["expected"], parts["fix"]
        super().__init__(found, expected, fix)
        self.found, self.expected, self.fix = (_sentence(x) for x in (found, expected, fix))
        if parts and parts["note"]:
            self.add_note(parts["note"])

    def __str__(self) -> str:
        if not (self.expected or self.fix):
            return self.found
        return f"{self.found}\nExpected: {self.expected}\nTo fix: {self.fix}"


def _sentence(text: str) -> str:
    """The text with a full stop at its end."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


class SettingError(AmortizedError):
    """An argument is of the wrong kind or outside its range."""


class CohortError(AmortizedError):
    """The data of a cohort contradict themselves: shapes, times, values that are not finite."""


class TableError(AmortizedError):
    """A table cannot be read as a cohort."""


class ModelError(AmortizedError):
    """A Pyro model is not a mixed-effects model that the library can read."""


class TrainingError(AmortizedError):
    """The amortized posterior cannot be trained with these settings or simulations."""


class GuideError(AmortizedError):
    """A guide does not belong to this model or cohort."""


class FitError(AmortizedError):
    """A population model cannot be fitted."""


class AmortizedWarning(UserWarning):
    """Numerical trouble, which the result states in detail. No data were dropped."""
