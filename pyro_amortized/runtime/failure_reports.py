"""Who reports that something could not be computed: the function that failed, or its caller.

Simulation counts its failures and reports them once; a line in the log for every batch would only
repeat that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_counted: ContextVar[bool] = ContextVar("counted", default=False)


@contextmanager
def failures_counted() -> Iterator[None]:
    """In this context the caller counts and reports failures."""
    token = _counted.set(True)
    try:
        yield
    finally:
        _counted.reset(token)


def caller_counts() -> bool:
    """Whether the caller counts and reports failures."""
    return _counted.get()
