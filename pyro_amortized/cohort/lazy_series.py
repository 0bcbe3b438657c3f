r"""Series of a repeated cohort, which are copied only when they are read.

A model that is run to obtain its individual parameters rarely reads the observations. Copies of
them would be most of the memory of a repeated cohort.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from .named_parts import unknown_name

Value = TypeVar("Value")


class LazyMapping(Mapping[str, Value], Generic[Value]):
    r"""A mapping that makes each value when it is first read, and keeps it.

    Args:
        names: The keys.
        make: Makes the value of a key.
        kind: What the values are, for the message about an unknown name.
    """

    def __init__(self, names: tuple[str, ...], make: Callable[[str], Value], kind: str) -> None:
        self._names, self._make, self._kind = names, make, kind
        self._made: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise unknown_name(self._kind, name, self._names)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
