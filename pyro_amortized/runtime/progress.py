r"""Progress bars, shown on a terminal and in a notebook, and silent in logs, pipes and jobs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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


Count = Callable[[str], None]
_wanted: ContextVar[bool] = ContextVar("progress_wanted", default=False)
_count: ContextVar[Count | None] = ContextVar("progress_count", default=None)


@contextmanager
def showing_progress(wanted: bool) -> Iterator[None]:
    """In this context, :func:`counting_steps` shows progress bars if they are wanted."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


@contextmanager
def counting_steps(name: str, total: int | None = None, unit: str = "it") -> Iterator[None]:
    r"""A progress bar of the steps that :func:`count_step` counts in this context.

    It is shown if the caller of the public function wanted it; bars inside it are not.

    Args:
        name: What is counted.
        total: Number of steps, if it is known.
        unit: What a step is.

    Example:
        >>> with showing_progress(False), counting_steps("fit", 2, "round"):
        ...     count_step("the first")
    """
    with progress_bar(_wanted.get(), desc=name, total=total, unit=unit) as bar:

        def count(text: str) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update()

        token = _count.set(count)
        try:
            with showing_progress(False):
                yield
        finally:
            _count.reset(token)


def count_step(text: str = "") -> None:
    """Count one step of the innermost :func:`counting_steps`, with a text beside the bar."""
    count = _count.get()
    if count is not None:
        count(text)
