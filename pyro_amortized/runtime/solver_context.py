r"""Results of expensive functions, remembered while their inputs stay the same.

Inside a fit the individual parameters are fixed draws: whatever the program computes from them
alone, above all the solution of its dynamics, is the same at every step of the optimiser.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

MAX_BYTES = 2**31


class Memory:
    r"""Recent results, by their inputs.

    Args:
        max_bytes: Largest memory; the oldest results are forgotten beyond it.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: list[tuple[Any, list[Tensor], Any, int]] = []
        self.num_found = 0

    def find(self, key: Any, inputs: Sequence[Tensor]) -> Any | None:
        """The result for equal inputs, or None."""
        for j, (known, tensors, result, _) in enumerate(self._entries):
            if known == key and len(tensors) == len(inputs) and _equal(tensors, inputs):
                self._entries.append(self._entries.pop(j))
                self.num_found += 1
                return result
        return None

    def keep(self, key: Any, inputs: Sequence[Tensor], result: Any, num_bytes: int) -> None:
        """Remember a result; the inputs are copied."""
        copies = [x.detach().clone() for x in inputs]
        size = num_bytes + sum(x.numel() * x.element_size() for x in copies)
        self._entries.append((key, copies, result, size))
        while len(self._entries) > 1 and sum(e[3] for e in self._entries) > self.max_bytes:
            self._entries.pop(0)


_current: ContextVar[Memory | None] = ContextVar("memory", default=None)


def current_memory() -> Memory | None:
    """The memory in use, or None."""
    return _current.get()


@contextmanager
def remembering(memory: Memory) -> Iterator[Memory]:
    """Use a memory; nothing is remembered outside such a context."""
    token = _current.set(memory)
    try:
        yield memory
    finally:
        _current.reset(token)


def recall(
    key: Any, inputs: Sequence[Tensor], compute: Callable[[], Any], size: Callable[[Any], int]
) -> Any:
    r"""The result of ``compute``, from memory where the inputs are equal.

    Args:
        key: What is computed besides its inputs; None is never remembered.
        inputs: All tensors that the result depends on.
        compute: Makes the result, which nobody may change afterwards.
        size: Bytes of a result.
    """
    memory = current_memory()
    if memory is None or key is None:
        return compute()
    found = memory.find(key, inputs)
    if found is None:
        found = compute()
        memory.keep(key, inputs, found, size(found))
    return found


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(first, second, strict=True)
    )
