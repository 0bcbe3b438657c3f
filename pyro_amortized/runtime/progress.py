r"""Progress bars, shown on a terminal and in a notebook, and silent in logs, pipes and jobs."""

import sys
from typing import Any

from tqdm.auto import tqdm


def progress_bar(wanted: bool, **settings: Any) -> "tqdm[Any]":
    """A progress bar on standard error, shown if it is wanted and there is a terminal or notebook.

    Args:
        wanted: Whether the caller asked for a progress bar.
        settings: Arguments of ``tqdm``.
    """
    is_visible = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(disable=not (wanted and is_visible), **settings)
