r"""A cohort laid end to end many times, whose series are copied only when they are looked at.

A program that is run as far as its individual parameters rarely looks at the observations; copies
of them would be most of the memory.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LazyMapping(Mapping[str, Value], Generic[Value]):
    r"""A mapping whose values are made when they are asked for, and kept.

    Args:
        names: Its keys.
        make: Makes the value of a key.
    """

    def __init__(self, names: tuple[str, ...], make: Callable[[str], Value]) -> None:
        self._names, self._make = names, make
        self._made: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
