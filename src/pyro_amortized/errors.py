r"""The errors and warnings of the library.

Every message has three parts: what was found, what was expected, how to mend it. A mistake of the
user raises a child of :class:`AmortizedError` at the door; numerical trouble of one individual is
never an exception, it is returned with the result and announced once by an
:class:`AmortizedWarning`.
"""


class AmortizedError(ValueError):
    r"""A user's mistake, told in three parts.

    Args:
        found: What was found.
        expected: What was expected in its place.
        mend: What to change.

    Example:
        >>> raise AmortizedError("`n` is -1.", "A positive integer.", "pass n=1 or more.")
        Traceback (most recent call last):
        ...
        pyro_amortized.errors.AmortizedError: `n` is -1.
        Expected: A positive integer.
        To mend it: pass n=1 or more.
    """

    def __init__(self, found: str, expected: str, mend: str) -> None:
        super().__init__(found, expected, mend)
        self.found, self.expected, self.mend = (_sentence(x) for x in (found, expected, mend))

    def __str__(self) -> str:
        return f"{self.found}\nExpected: {self.expected}\nTo mend it: {self.mend}"


def _sentence(text: str) -> str:
    """What others said (the message of an error, say) ends with a full stop too."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


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
