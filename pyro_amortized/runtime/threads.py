"""Threads of torch: one for small tensors, the caller's number for large ones.

Every operation on more than 32,768 elements is split between the threads of torch, which then wait
for each other. At the sizes of most fits this costs as much as it gains, and on a machine with
other work it made fits three to ten times slower (decision 059).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from .isolation import torch_threads


@dataclass(frozen=True)
class ThreadSettings:
    r"""When more than one thread is used.

    Args:
        values_per_thread: Observed values times draws for each thread.
    """

    values_per_thread: int = 2_000_000


THREADS = ThreadSettings()
_OF_CALLER: ContextVar[int | None] = ContextVar("threads_of_caller", default=None)


@contextmanager
def threads_for(num_values: int) -> Iterator[None]:
    r"""Run with as many threads of torch as pay, at most those of the caller.

    Args:
        num_values: Number of observed values times draws that are evaluated together.
    """
    most = threads_of_caller()
    token = _OF_CALLER.set(most)
    try:
        with torch_threads(max(1, min(most, num_values // THREADS.values_per_thread))):
            yield
    finally:
        _OF_CALLER.reset(token)


def threads_of_caller() -> int:
    """The number of threads outside of :func:`threads_for`; compiled solvers use all of them."""
    number = _OF_CALLER.get()
    return torch.get_num_threads() if number is None else number
