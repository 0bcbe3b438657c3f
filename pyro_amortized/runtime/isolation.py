r"""What a call into foreign code may not leave behind.

A user's program samples from torch's global generator, may build float32 constants, write to Pyro's
parameter store and raise as soon as one value of one individual is not finite. The contexts of this
module let the library run it reproducibly, in float64 and without validation, and put everything
back as it was.

All of this state belongs to the process, as Pyro's stack of handlers does: one thread at a time has
it, and others wait.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Generator

from .arguments import check_seed

_LOCK = threading.RLock()


def _new_lock() -> None:
    """Nobody holds it in a forked process."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def make_generator(seed: int | Generator) -> Generator:
    """A generator from a seed; a generator is handed through.

    Example:
        >>> first, second = (torch.rand(1, generator=make_generator(1)) for _ in range(2))
        >>> bool(first == second)
        True
    """
    check_seed(seed)
    return seed if isinstance(seed, Generator) else torch.Generator().manual_seed(seed)


def fork_seed(generator: Generator) -> int:
    """Draw a seed from ``generator``, for code that knows only global seeds."""
    return int(torch.randint(2**62, (), generator=generator))


@contextmanager
def seeded(seed: int | Generator) -> Iterator[None]:
    """Run with torch's global generators seeded; restore them afterwards."""
    seed = fork_seed(seed) if isinstance(seed, Generator) else seed
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with _LOCK, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def torch_threads(num_threads: int | None) -> Iterator[None]:
    """Run with a number of torch threads (None: as found); restore it afterwards."""
    found = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(found)


@contextmanager
def double_precision() -> Iterator[None]:
    """Run with float64 as torch's default dtype, so that constants of a program do not round."""
    found = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(found)


@contextmanager
def foreign_program(validate: bool = False) -> Iterator[None]:
    r"""Run a Pyro program for ourselves: hidden from the handlers outside, in float64, the
    parameter store kept.

    Args:
        validate: Keep Pyro's validation as found. By default it is off, because one value that is
            not finite would raise for the whole batch.
    """
    store = pyro.get_param_store()
    with _LOCK, pyro.poutine.block(), double_precision():
        known = set(store.keys())
        try:
            if validate:
                yield
            else:
                with pyro.validation_enabled(False):
                    yield
        finally:
            for name in set(store.keys()) - known:
                del store[name]
