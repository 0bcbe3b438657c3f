r"""What the code around a model tells the solvers inside it.

Two things: a cache of solutions, and who reports failed solutions.

Inside a fit the individual parameters are fixed draws. What the model computes from them alone,
above all the solution of its dynamics, is therefore the same at every step of the optimizer, and
:func:`cached_result` computes it once per :class:`SolutionCache`. Outside the context
:func:`caching` nothing is cached.

A solver logs the individuals whose solution failed. Code that simulates many batches counts the
failures and reports them once, so it switches the log off by :func:`failures_reported_by_caller`.
Code that tries thousands of places, many of them far from the data, logs all failures in one line
(:func:`failures_in_one_line`).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

LOG = logging.getLogger("pyro_amortized.nlme")
CLOSED_FORM = "closed form"  # first part of the key of a result that costs little
MAX_BYTES = 2**31  # an eighth of a common workstation's memory
# Share of the trajectories of a fit that may fail without a warning: those of parameters that were
# only tried. Individuals that the line names.
MAX_FAILED_SHARE = 1e-3
MAX_NAMED = 10


class _Entry(NamedTuple):
    key: Any
    inputs: list[Tensor]
    result: Any
    num_bytes: int


class SolutionCache:
    r"""The most recent results, identified by their inputs.

    Args:
        max_bytes: Largest size; beyond it the results that were used least recently are removed.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: list[_Entry] = []
        self.num_hits = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was computed that can be cached."""
        return not self._entries

    @property
    def has_dynamics(self) -> bool:
        """Whether anything but closed forms was computed: the solution of dynamics."""
        return any(entry.key[0] != CLOSED_FORM for entry in self._entries)

    def get(self, key: Any, inputs: Sequence[Tensor]) -> Any | None:
        """The result for equal inputs, or None."""
        for j, entry in enumerate(self._entries):
            if entry.key == key and _equal(entry.inputs, inputs):
                self._entries.append(self._entries.pop(j))
                self.num_hits += 1
                return entry.result
        return None

    def add(self, key: Any, inputs: Sequence[Tensor], result: Any, num_bytes: int) -> None:
        """Add a result; the inputs are copied, so that later changes in place do not matter."""
        copies = [x.detach().clone() for x in inputs]
        size = num_bytes + sum(x.numel() * x.element_size() for x in copies)
        self._entries.append(_Entry(key, copies, result, size))
        while len(self._entries) > 1 and sum(e.num_bytes for e in self._entries) > self.max_bytes:
            self._entries.pop(0)


_active_cache: ContextVar[SolutionCache | None] = ContextVar("active_cache", default=None)
_caller_reports: ContextVar[bool] = ContextVar("caller_reports", default=False)


@contextmanager
def caching(cache: SolutionCache) -> Iterator[SolutionCache]:
    """Use a cache in this context."""
    token = _active_cache.set(cache)
    try:
        yield cache
    finally:
        _active_cache.reset(token)


@contextmanager
def caching_here() -> Iterator[SolutionCache]:
    """Use the cache of an outer context, or else a new one in this context."""
    outer = _active_cache.get()
    if outer is not None:
        yield outer
        return
    with caching(SolutionCache()) as cache:
        yield cache


def cached_result(
    key: Any, inputs: Sequence[Tensor], compute: Callable[[], Any], size: Callable[[Any], int]
) -> Any:
    r"""The result of ``compute``, from the active cache if the inputs are equal.

    Args:
        key: What is computed, apart from its inputs, a tuple that begins with ``CLOSED_FORM`` for
            closed forms; a result with key None is never cached.
        inputs: All tensors that the result depends on.
        compute: Computes the result, which must not be changed in place afterwards.
        size: Gives the number of bytes of a result.
    """
    cache = _active_cache.get()
    if cache is None or key is None:
        return compute()
    result = cache.get(key, inputs)
    if result is None:
        result = compute()
        cache.add(key, inputs, result, size(result))
    return result


@contextmanager
def failures_reported_by_caller() -> Iterator[None]:
    """In this context the caller counts the failures and reports them."""
    token = _caller_reports.set(True)
    try:
        yield
    finally:
        _caller_reports.reset(token)


def caller_reports_failures() -> bool:
    """Whether the caller counts the failures and reports them."""
    return _caller_reports.get()


class FailureCount:
    """Trajectories that were solved or not, and by individual those that were not."""

    def __init__(self) -> None:
        self.total = 0
        self.failed: Counter[str] = Counter()

    def add(self, failed: Tensor) -> None:
        """Count trajectories; those of the last dimension belong to different rows."""
        self.total += failed.numel()
        by_row = failed.reshape(-1, failed.shape[-1]).sum(0)
        for row in by_row.nonzero()[:, 0].tolist():
            self.failed[labels_of_rows([row], len(by_row))[0]] += int(by_row[row])

    def log(self, task: str) -> None:
        """One line: a warning if the share is not small."""
        failed = sum(self.failed.values())
        if not failed:
            return
        level = logging.WARNING if failed > MAX_FAILED_SHARE * self.total else logging.INFO
        named = [f"{name} ({count})" for name, count in self.failed.most_common(MAX_NAMED)]
        LOG.log(
            level,
            "%s: %d of %d trajectories were not solved and count as impossible, most of them of "
            "individuals %s%s.",
            *(task, failed, self.total, ", ".join(named)),
            " ..." if len(self.failed) > MAX_NAMED else "",
        )


_failure_count: ContextVar[FailureCount | None] = ContextVar("failure_count", default=None)


def active_failure_count() -> FailureCount | None:
    """The count of the outermost :func:`failures_in_one_line`, or None."""
    return _failure_count.get()


@contextmanager
def failures_in_one_line(task: str) -> Iterator[None]:
    """Count the trajectories that are not solved in this context, and log them in one line at its
    end: as a warning where they are more than a thousandth.
    """
    if _failure_count.get() is not None:
        yield
        return
    count = FailureCount()
    token = _failure_count.set(count)
    try:
        yield
    finally:
        _failure_count.reset(token)
        count.log(task)


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(first, second, strict=True)
    )


_row_labels: ContextVar[tuple[str, ...]] = ContextVar("row_labels", default=())


@contextmanager
def labelled_rows(labels: tuple[str, ...]) -> Iterator[None]:
    """In this context, row i of a cohort that a program runs with belongs to ``labels[i]``."""
    token = _row_labels.set(labels)
    try:
        yield
    finally:
        _row_labels.reset(token)


def labels_of_rows(rows: list[int], num_rows: int) -> list[str]:
    """The individuals of some rows, each once; numbers where their labels are not known."""
    labels = _row_labels.get()
    known = labels if len(labels) == num_rows else tuple(str(i) for i in range(num_rows))
    return list(dict.fromkeys(known[i] for i in rows))
