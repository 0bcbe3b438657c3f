r"""The names that a function reads, from its bytecode.

A function reads state outside its arguments through global names, through the variables of its
closure and, if it is a method, through its first argument. For each of these the module gives the
chain of attributes that is read: ``config.inner.k`` is the name ``config`` with the chain
``("inner", "k")``. A name that is used in any other way (passed on, stored, indexed) has the empty
chain, which means that everything in it may be read. Nested functions are part of the function.
"""

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

LIBRARIES = frozenset(
    [
        "abc",
        "builtins",
        "cmath",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "itertools",
        "math",
        "numbers",
        "numpy",
        "operator",
        "torch",
        "types",
        "typing",
    ]
)
RANDOM = frozenset(
    [
        "rand",
        "randn",
        "randint",
        "randperm",
        "rand_like",
        "randn_like",
        "randint_like",
        "bernoulli",
        "bernoulli_",
        "multinomial",
        "poisson",
        "normal_",
        "uniform_",
        "exponential_",
        "random_",
        "manual_seed",
    ]
)
GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
CELL = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
WRITTEN = ("STORE_GLOBAL", "DELETE_GLOBAL")
WRITTEN_CELL = ("STORE_DEREF", "DELETE_DEREF")
ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
IMPLICIT = frozenset({"super", "locals", "vars", "dir"})  # they read variables without naming them


@dataclass(frozen=True)
class BytecodeSettings:
    r"""Size of the cache.

    Args:
        max_functions: Functions whose names are stored. More functions than this means that new
            ones are made all the time, and the cache is emptied.
    """

    max_functions: int = 1_000


DEFAULTS = BytecodeSettings()

Chain = tuple[str, ...]
Named = tuple[tuple[str, Chain], ...]

_cache: dict[int, tuple[CodeType, "Reads"]] = {}


@dataclass(frozen=True)
class Reads:
    r"""What a function reads.

    Args:
        names: Global names, each with a chain of attributes.
        cells: Variables of the closure, likewise.
        first: Chains that are read from the first argument.
        reason: Why more than these names may be read; None if they are complete.
    """

    names: Named
    cells: Named
    first: tuple[Chain, ...]
    reason: str | None


def reads_of(code: CodeType) -> Reads:
    """The names that the code of a function reads; stored, because code does not change."""
    stored = _cache.get(id(code))
    if stored is None:
        if len(_cache) >= DEFAULTS.max_functions:
            _cache.clear()
        # The code is stored with them, so that no other code gets the same ``id``.
        stored = _cache[id(code)] = (code, _reads(code))
    return stored[1]


def is_library(name: str | None) -> bool:
    """Whether a module belongs to a library whose functions and attributes do not change."""
    return name is not None and name.partition(".")[0] in LIBRARIES


def _reads(code: CodeType) -> Reads:
    """The names that the code of a function and of its nested functions reads."""
    names: dict[tuple[str, Chain], None] = {}
    cells: dict[tuple[str, Chain], None] = {}
    reason = None
    for part in _with_nested(code):
        if not RANDOM.isdisjoint(part.co_names):
            reason = "it draws random numbers"
        steps = [s for s in dis.get_instructions(part) if s.opname != "EXTENDED_ARG"]
        for j, step in enumerate(steps):
            name = step.argval
            if step.opname in GLOBAL:
                names[name, _chain(steps, j)] = None
            elif step.opname in CELL and name in code.co_freevars:
                cells[name, _chain(steps, j)] = None
            elif step.opname in WRITTEN:
                reason = f"it writes the global {name!r}"
            elif step.opname in WRITTEN_CELL and name in code.co_freevars:
                reason = f"it writes {name!r}, a variable of its closure"
            elif step.opname == "IMPORT_NAME" and not (
                is_library(name) and j >= 2 and steps[j - 2].argval == 0  # not a relative import
            ):
                reason = f"it imports {name!r}"
    first = _of_first_argument(code)
    if any(name in IMPLICIT for name, _ in names):
        first = ((),)
        cells |= dict.fromkeys((name, ()) for name in code.co_freevars)
    return Reads(tuple(names), tuple(cells), first, reason)


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of its nested functions."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _with_nested(const)


def _chain(steps: list[dis.Instruction], position: int) -> Chain:
    """Attributes that are read from the value that the instruction at this position loads."""
    chain = []
    for step in steps[position + 1 :]:
        if step.opname not in ATTRIBUTE:
            break
        chain.append(str(step.argval))
    return tuple(chain)


def _of_first_argument(code: CodeType) -> tuple[Chain, ...]:
    """Chains of the first argument; the empty chain if it is used in another way."""
    if not code.co_argcount:
        return ((),)
    first = code.co_varnames[0]
    if first in code.co_cellvars:  # a nested function uses it
        return ((),)
    steps = [s for s in dis.get_instructions(code) if s.opname != "EXTENDED_ARG"]
    chains: dict[Chain, None] = {}
    for j, step in enumerate(steps):
        loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if "FAST" in step.opname and first in loaded:
            single = step.opname in ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW")
            chains[_chain(steps, j) if single else ()] = None
    return tuple(chains)
