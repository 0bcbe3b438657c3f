r"""The errors and warnings of the library.

Every message has three parts: what was found, what was expected, how to fix it. A mistake of the
user raises a child of :class:`AmortizedError` at the door; numerical trouble of one individual is
never an exception, it is returned with the result and announced once by an
:class:`AmortizedWarning`, which names the line of the user's code.
"""

import re

# A message in one text. The last parts are the message's own: an earlier "Expected:" belongs to
# another error that it quotes. What Pyro's trace appends to a message comes behind them.
WHOLE = re.compile(
    r"(?P<found>.*)\nExpected: (?P<expected>.*)\nTo fix: (?P<fix>.*?)"
    r"(\n(?P<note> *Trace Shapes:.*))?",
    re.DOTALL,
)


class AmortizedError(ValueError):
    r"""A user's mistake, told in three parts.

    Other software builds an exception anew from the text of a first one: Pyro's trace does, to
    append the shapes of the sites, and the data loader of torch, for another process. An error that
    is built from one text therefore finds its three parts in that text; the shapes become a note.

    Args:
        found: What was found; or the whole message.
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
        whole = None if expected or fix else WHOLE.fullmatch(found)
        if whole:
            found, expected, fix = whole["found"], whole["expected"], whole["fix"]
        super().__init__(found, expected, fix)
        self.found, self.expected, self.fix = (_sentence(x) for x in (found, expected, fix))
        if whole and whole["note"]:
            self.add_note(whole["note"])

    def __str__(self) -> str:
        if not (self.expected or self.fix):
            return self.found
        return f"{self.found}\nExpected: {self.expected}\nTo fix: {self.fix}"


def _sentence(text: str) -> str:
    """What others said (the message of an error, say) ends with a full stop too."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


class SettingError(AmortizedError):
    """An argument is of the wrong kind or outside its range."""


class CohortError(AmortizedError):
    """The data of a cohort contradict themselves: shapes, times, values that are not finite."""


class TableError(AmortizedError):
    """A table cannot be read as a cohort."""


class ModelError(AmortizedError):
    """A Pyro program is not a mixed-effects model that the library can read."""


class TrainingError(AmortizedError):
    """The amortized posterior cannot be trained with these settings or simulations."""


class GuideError(AmortizedError):
    """A guide does not belong to this model or cohort."""


class FitError(AmortizedError):
    """A population model cannot be fitted."""


class AmortizedWarning(UserWarning):
    """Numerical trouble that the result states in detail; nothing was dropped."""
