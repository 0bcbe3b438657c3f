r"""Warnings that point at the line of the user."""

import sys
import warnings
from types import FrameType

from ..errors import AmortizedWarning

# Whose frames are passed over in search of the user's line. Decorators of torch and context
# managers stand between two frames of the package, and Pyro's handlers around the user's model.
BETWEEN = frozenset({__name__.partition(".")[0], "torch", "pyro", "contextlib"})


def warn_user(message: str) -> None:
    r"""Warn at the user's line: the nearest frame that is not of the package or between its frames.

    Python 3.12 can do this itself (``skip_file_prefixes``); the library supports 3.11.

    Args:
        message: What the result states in detail.
    """
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and not _is_users(frame):
        frame, level = frame.f_back, level + 1
    if frame is None:  # nobody's line, in a thread of the package, say
        level = 2
    warnings.warn(message, AmortizedWarning, stacklevel=level)


def _is_users(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] not in BETWEEN
