r"""Keys of functions: two functions with equal keys give equal results for equal arguments.

The key of a function consists of its code and of the values of everything that the code reads
besides its arguments: global variables, closures, defaults, attributes of modules, classes and
instances, members of containers, arrays and tensors, and the same for every function that it calls.
The key is computed again at every use, so it changes with any of these values. If something cannot
be read in full (a module that is passed on, an iterator, a large array, a function that writes
global variables), the function has no key. Then neither its compiled system nor its solutions may
be stored.

It is assumed that the functions and attributes of a few libraries (Python's mathematics, NumPy and
torch) and the functions of this package do not change.
"""

import collections
import functools
import logging
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .bytecode import Chain, is_library, reads_of

LOG = logging.getLogger("pyro_amortized.nlme")


@dataclass(frozen=True)
class KeyLimits:
    r"""Size above which a function has no key, because computing the key would take too long.

    Args:
        max_parts: Values in a key.
        max_depth: Depth to which values may be nested.
        max_bytes: Size of an array or a tensor. A larger one takes longer to compare than the
            function takes to trace.
    """

    max_parts: int = 2_000
    max_depth: int = 50
    max_bytes: int = 2**15


LIMITS = KeyLimits()

PACKAGE = str(Path(__file__).parents[__name__.count(".") - 1]) + os.sep
HEAP_TYPE = 1 << 9  # CPython's flag of classes that are defined by Python code
MISSING = "<missing>"
REPEATED = "<repeated>"

PLAIN = frozenset({int, bool, str, bytes, range, *map(type, (None, ..., NotImplemented))})
CONSTANT = frozenset(  # types whose values cannot change
    {
        torch.dtype,
        torch.device,
        torch.layout,
        torch.memory_format,
        np.ufunc,
        types.CodeType,
        types.MemberDescriptorType,
        types.GetSetDescriptorType,
        types.WrapperDescriptorType,
        types.MethodDescriptorType,
        types.ClassMethodDescriptorType,
        type(vars(collections.namedtuple("_", "a"))["a"]),
    }
)
WITH_ACCESS_TO_ALL = frozenset({breakpoint, compile, eval, exec, globals, input, __import__})
READ_FILES_OR_RANDOM = frozenset(
    ["fromfile", "from_file", "genfromtxt", "hub", "load", "loadtxt", "memmap", "random"]
)
NOT_STATE = frozenset(  # entries of a class that no method computes with
    [
        "__abstractmethods__",
        "__annotations__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__match_args__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    ]
)

_logged: set[tuple[str, str]] = set()


class NoKey(Exception):
    """A function reads something that cannot be part of a key; the message names it."""


def key_of(f: Any) -> Any:
    r"""Key of a function, or None if it reads values that may change without notice.

    The reason for None is logged once.

    Args:
        f: A function, a bound method, a ``functools.partial`` or an instance that can be called.

    Example:
        >>> settings = types.SimpleNamespace(k=1.0)
        >>> f = lambda t, x, p: -settings.k * x
        >>> before = key_of(f)
        >>> settings.k = 2.0
        >>> key_of(f) == before
        False
    """
    call = getattr(type(f), "__call__", None)  # noqa: B004 - the method, not whether there is one
    called = types.MethodType(call, f) if isinstance(call, types.FunctionType) else f
    try:
        key = _Reader().value(called)
    except NoKey as reason:
        name = getattr(f, "__qualname__", type(f).__name__)
        if (name, str(reason)) not in _logged:
            LOG.info("%s is traced at every call, and solutions are not stored: %s.", name, reason)
            _logged.add((name, str(reason)))
        return None
    return torch.get_default_dtype(), key  # the dtype of constants in the function


class _Reader:
    """Turns values into parts of one key; a value that was read before is given by its number."""

    def __init__(self) -> None:
        self.numbers: dict[Any, tuple[int, Any]] = {}
        self.num_parts = self.depth = 0

    def value(self, x: Any) -> Any:
        """The part of any value."""
        kind = type(x)
        if kind in PLAIN:
            return kind, x
        if kind is float or kind is complex:
            return kind, repr(x)  # 0 and -0 differ, and NaN equals NaN
        if kind in CONSTANT:
            return x
        read_before = self.numbers.get(id(x))
        if read_before is not None:
            return REPEATED, read_before[0]
        self._add_number(id(x), x)
        self.depth += 1
        if self.depth > LIMITS.max_depth:
            raise NoKey("it reads values that are nested too deeply")
        part = _reader_of(x, kind)(self, x)
        self.depth -= 1
        return kind, part

    def _add_number(self, identifier: Any, *values: Any) -> None:
        """Number a value. It is stored, so that no other value gets the same ``id``."""
        self.numbers[identifier] = (len(self.numbers), values)
        self.count(1)

    def count(self, num: int) -> None:
        """Count values against the limit."""
        self.num_parts += num
        if self.num_parts > LIMITS.max_parts:
            raise NoKey("it reads too many values")

    def at(self, x: Any, chain: Chain) -> Any:
        """The part of the value that a chain of attributes gives."""
        for name in chain:
            if isinstance(x, types.ModuleType) and is_library(x.__name__):
                break
            try:
                x = getattr(x, name)
            except AttributeError:
                return MISSING
            except Exception as error:
                raise NoKey(f"its attribute {name!r} raises {type(error).__name__}") from error
        if isinstance(x, types.ModuleType) and not READ_FILES_OR_RANDOM.isdisjoint(chain):
            raise NoKey(f"it reads {x.__name__}.{'.'.join(chain)}")
        return self.value(x)

    def function(self, f: types.FunctionType) -> Any:
        """A function: its code and what the code reads, except from the first argument."""
        names = f.__globals__
        library = _is_of_library(f)
        if library and f.__closure__ is None:
            return f
        reads = reads_of(f.__code__)
        parts: list[Any] = [f.__code__]
        parts += [self.value(x) if x else None for x in (f.__defaults__, f.__kwdefaults__)]
        parts.append(self.value(f.__dict__) if f.__dict__ else None)
        cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        if library:
            parts += [self.value(_content(cell)) for cell in cells.values()]
            return tuple(parts)
        if reads.reason is not None:
            raise NoKey(reads.reason)
        parts += [self.at(_content(cells[name]), chain) for name, chain in reads.cells]
        builtin: Mapping[str, Any] = cast(Any, f).__builtins__
        for name, chain in reads.names:
            x = names[name] if name in names else builtin.get(name, MISSING)
            parts.append(self.at(x, chain))
        return tuple(parts)

    def method(self, m: types.MethodType) -> Any:
        """A bound method: the function, and what it reads from its object."""
        f, owner = m.__func__, m.__self__
        if not isinstance(f, types.FunctionType) or _is_of_library(f):
            return self.value(f), self.value(owner)
        read_before = self.numbers.get((id(f), id(owner)))
        if read_before is not None:
            return REPEATED, read_before[0]
        self._add_number((id(f), id(owner)), f, owner)
        return self.value(f), tuple(self.at(owner, c) for c in reads_of(f.__code__).first)

    def builtin(self, f: Any) -> Any:
        """A function or method that is written in C."""
        owner = f.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            module = f.__module__ if owner is None else owner.__name__
            if f in WITH_ACCESS_TO_ALL or not is_library(module):
                raise NoKey(f"it calls {module}.{f.__name__}")
            return f
        return f.__name__, self.value(owner)

    def module(self, m: types.ModuleType) -> Any:
        """A module that is used as a value; only libraries are allowed."""
        if not is_library(m.__name__) or m.__name__.endswith(".random"):
            raise NoKey(f"it uses the module {m.__name__} in another way than by its attributes")
        return m

    def sequence(self, x: Any) -> Any:
        """Members in their order."""
        self.count(len(x))
        return tuple(map(self.value, x))

    def mapping(self, x: Mapping[Any, Any]) -> Any:
        """Entries in their order."""
        self.count(len(x))
        return tuple((self.value(k), self.value(v)) for k, v in x.items())

    def tensor(self, x: Tensor) -> Any:
        """A small tensor on the CPU, by its values."""
        if x.requires_grad and torch.is_grad_enabled():
            raise NoKey("a tensor that it reads needs a gradient")
        if x.device.type != "cpu" or x.numel() * x.element_size() > LIMITS.max_bytes:
            raise NoKey("it reads a tensor that is large or not on the CPU")
        try:
            return x.dtype, tuple(x.shape), x.detach().numpy().tobytes()
        except (RuntimeError, TypeError) as error:  # torch.func's, sparse, bfloat16, ...
            raise NoKey("it reads a tensor that cannot be converted to NumPy") from error

    def array(self, x: Any) -> Any:
        """A small array or a scalar of NumPy, by its values."""
        if x.dtype.hasobject or x.nbytes > LIMITS.max_bytes:
            raise NoKey("it reads an array of objects or a large one")
        return str(x.dtype), x.shape, x.tobytes()

    def cls(self, c: type) -> Any:
        """A class: its bases and all its entries."""
        if is_library(c.__module__):
            return c
        entries = {n: x for n, x in vars(c).items() if n not in NOT_STATE}
        return self.value(type(c)), self.sequence(c.__bases__), self.mapping(entries)

    def instance(self, x: Any) -> Any:
        """An instance of a class that is written in Python: class, attributes and slots."""
        kind = type(x)
        base = next(b for b in kind.__mro__ if _is_in_c(b))
        if base not in CONTENTS:
            raise NoKey(f"it reads an instance of {kind.__module__}.{kind.__qualname__}")
        slots = [
            (n, self.value(getattr(x, n, MISSING)))
            for c in kind.__mro__
            for n, d in vars(c).items()
            if type(d) is types.MemberDescriptorType and c is not base
        ]
        attributes = self.mapping(getattr(x, "__dict__", {}))
        return self.value(kind), self.value(CONTENTS[base](x)), attributes, tuple(slots)


def _is_of_library(f: types.FunctionType) -> bool:
    """Whether a function belongs to a library or to this package.

    The file decides, not ``__module__``, which ``functools.wraps`` copies. Examples in docstrings
    run under the name of this package and do not belong to it.
    """
    return is_library(f.__globals__.get("__name__")) or f.__code__.co_filename.startswith(PACKAGE)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return MISSING


def _is_in_c(c: type) -> bool:
    """Whether a class is written in C, so that its instances may have state that is not visible."""
    new = c.__new__
    has_own_new = isinstance(new, types.BuiltinFunctionType) and new.__self__ is c
    return has_own_new or not c.__flags__ & HEAP_TYPE


CONTENTS: dict[type, Callable[[Any], Any]] = {  # value of an instance, besides its attributes
    object: lambda x: None,
    types.SimpleNamespace: lambda x: None,
    int: int.__repr__,
    float: float.__repr__,
    complex: complex.__repr__,
    str: str.__str__,
    bytes: bytes.__repr__,
    tuple: lambda x: tuple(tuple.__iter__(x)),
    list: lambda x: tuple(list.__iter__(x)),
    dict: lambda x: tuple(dict.items(x)),
    collections.OrderedDict: lambda x: tuple(collections.OrderedDict.items(x)),
}

READERS: dict[type, Callable[[_Reader, Any], Any]] = {
    types.FunctionType: _Reader.function,
    types.MethodType: _Reader.method,
    types.BuiltinFunctionType: _Reader.builtin,
    types.ModuleType: _Reader.module,
    functools.partial: lambda r, x: r.sequence((x.func, x.args, x.keywords, vars(x))),
    functools.cached_property: lambda r, x: r.value(x.func),
    property: lambda r, x: r.sequence((x.fget, x.fset, x.fdel)),
    staticmethod: lambda r, x: r.value(x.__func__),
    classmethod: lambda r, x: r.value(x.__func__),
    slice: lambda r, x: r.sequence((x.start, x.stop, x.step)),
    **dict.fromkeys((tuple, list, set, frozenset), _Reader.sequence),
    **dict.fromkeys((dict, collections.OrderedDict, types.MappingProxyType), _Reader.mapping),
    **dict.fromkeys((Tensor, torch.nn.Parameter), _Reader.tensor),
    np.ndarray: _Reader.array,
}


def _reader_of(x: Any, kind: type) -> Callable[[_Reader, Any], Any]:
    if kind in READERS:
        return READERS[kind]
    if isinstance(x, type):
        return _Reader.cls
    return _Reader.array if isinstance(x, np.generic) else _Reader.instance
