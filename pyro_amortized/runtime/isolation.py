r"""Contexts that run a user's model without lasting effects on global state.

A user's model samples from torch's global generator. It may create float32 constants, write to
Pyro's parameter store, and raise an error if one value of one individual is not finite. The
contexts of this module run it reproducibly, in float64 and without validation, and restore the
global state afterwards.

This state belongs to the whole process, like Pyro's stack of handlers. A lock therefore lets one
thread at a time into these contexts, and other threads wait.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Generator

from .random_numbers import fork_seed

_LOCK = threading.RLock()


def _new_lock() -> None:
    """A forked process starts with a lock that no thread holds."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def seeded(seed: int | Generator) -> Iterator[None]:
    """Run with torch's global generators seeded; restore them afterwards."""
    seed = fork_seed(seed) if isinstance(seed, Generator) else seed
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with _LOCK, torch.random.fork_rng(devices=devices):
        _set_seed(seed)
        yield


def _set_seed(seed: int) -> None:
    """Do what ``torch.manual_seed`` does, without its cost where there is only a CPU.

    For each kind of accelerator that is not in use, ``torch.manual_seed`` keeps the call and a
    formatted stack trace for later. This takes milliseconds, in a loop over a thousand populations
    seconds.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def torch_threads(num_threads: int | None) -> Iterator[None]:
    """Run with a number of torch threads (None: unchanged); restore the number afterwards."""
    num_before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(num_before)


@contextmanager
def double_precision() -> Iterator[None]:
    """Run with float64 as torch's default dtype, so that a model's constants are not rounded."""
    dtype_before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype_before)


@contextmanager
def foreign_program(validate: bool = False) -> Iterator[None]:
    r"""Run a Pyro model for the library's own purposes.

    Effect handlers of the caller do not see the model's sites, constants are float64, and
    parameters that the model adds to Pyro's parameter store are removed afterwards.

    Args:
        validate: Leave Pyro's validation as the caller set it. By default it is off, because one
            value that is not finite would raise an error for the whole batch.
    """
    store = pyro.get_param_store()
    with _LOCK, pyro.poutine.block(), double_precision():
        names_before = set(store.keys())
        try:
            if validate:
                yield
            else:
                with pyro.validation_enabled(False):
                    yield
        finally:
            for name in set(store.keys()) - names_before:
                del store[name]
