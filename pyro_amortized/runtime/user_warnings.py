r"""Warnings that point at the line of the user."""

import sys
import warnings
from types import FrameType

from ..errors import AmortizedWarning

# Frames of these packages are skipped in the search for the user's line. Decorators of torch and
# context managers lie between two frames of the package, and Pyro's handlers around the model.
SKIPPED_PACKAGES = frozenset({__name__.partition(".")[0], "torch", "pyro", "contextlib"})


def warn_user(message: str) -> None:
    r"""Warn at the user's line: the nearest frame outside this package, torch and Pyro.

    Python 3.12 offers ``skip_file_prefixes`` for this purpose, but the library supports 3.11.

    Args:
        message: The text of the warning.
    """
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and not _is_users(frame):
        frame, level = frame.f_back, level + 1
    if frame is None:  # a thread of the package has no line of the user
        level = 2
    warnings.warn(message, AmortizedWarning, stacklevel=level)


def _is_users(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] not in SKIPPED_PACKAGES
