r"""Progress bars: on a terminal and in a notebook; silent in logs, pipes and jobs."""

import sys
from typing import Any

from tqdm.auto import tqdm


def bar(wanted: bool, **settings: Any) -> "tqdm[Any]":
    """A progress bar on standard error, if somebody can see it."""
    seen = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(disable=not (wanted and seen), **settings)
