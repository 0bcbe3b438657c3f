r"""Which names a function reads, from its bytecode.

A function reaches state outside its arguments through global names, through the variables of its
closure and, if it is a method, through its first argument. Of each we note the chain of attributes
that is read from it: ``config.inner.k`` is the name ``config`` with the chain ``("inner", "k")``. A
name that is used in any other way (passed on, stored, indexed) has the empty chain, which means
that everything in it may be read. Nested functions count as part of the function.
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
IMPLICIT = frozenset({"super", "locals", "vars", "dir"})  # they see variables that are not named
MAX_KNOWN = 1_000  # functions whose names are kept

Chain = tuple[str, ...]
Named = tuple[tuple[str, Chain], ...]

_known: dict[int, tuple[CodeType, "Reads"]] = {}


@dataclass(frozen=True)
class Reads:
    r"""What a function reads.

    Args:
        names: Global names, each with a chain of attributes.
        cells: Variables of the closure, likewise.
        first: Chains that are read from the first argument.
        unclear: Why more than that may be read, or None.
    """

    names: Named
    cells: Named
    first: tuple[Chain, ...]
    unclear: str | None


def reads_of(code: CodeType) -> Reads:
    """What the code of a function reads; kept, since it does not change."""
    known = _known.get(id(code))
    if known is None:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        known = _known[id(code)] = (code, _reads(code))  # the code is kept, so its id stays its own
    return known[1]


def is_library(name: str | None) -> bool:
    """Whether a module is one whose functions and attributes do not change."""
    return name is not None and name.partition(".")[0] in LIBRARIES


def _reads(code: CodeType) -> Reads:
    names: dict[tuple[str, Chain], None] = {}
    cells: dict[tuple[str, Chain], None] = {}
    unclear = None
    for part in _with_nested(code):
        if not RANDOM.isdisjoint(part.co_names):
            unclear = "it draws random numbers"
        steps = [s for s in dis.get_instructions(part) if s.opname != "EXTENDED_ARG"]
        for j, step in enumerate(steps):
            name = step.argval
            if step.opname in GLOBAL:
                names[name, _chain(steps, j)] = None
            elif step.opname in CELL and name in code.co_freevars:
                cells[name, _chain(steps, j)] = None
            elif step.opname in WRITTEN:
                unclear = f"it writes the global {name!r}"
            elif step.opname in WRITTEN_CELL and name in code.co_freevars:
                unclear = f"it writes {name!r}, a variable of its closure"
            elif step.opname == "IMPORT_NAME" and not (
                is_library(name) and j >= 2 and steps[j - 2].argval == 0  # not a relative import
            ):
                unclear = f"it imports {name!r}"
    first = _of_first_argument(code)
    if any(name in IMPLICIT for name, _ in names):
        first = ((),)
        cells |= dict.fromkeys((name, ()) for name in code.co_freevars)
    return Reads(tuple(names), tuple(cells), first, unclear)


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _with_nested(const)


def _chain(steps: list[dis.Instruction], place: int) -> Chain:
    """Attributes that are read from what the step at this place has loaded."""
    chain = []
    for step in steps[place + 1 :]:
        if step.opname not in ATTRIBUTE:
            break
        chain.append(str(step.argval))
    return tuple(chain)


def _of_first_argument(code: CodeType) -> tuple[Chain, ...]:
    """Chains from the first argument; the empty one where it is used in another way."""
    if not code.co_argcount:
        return ((),)
    first = code.co_varnames[0]
    if first in code.co_cellvars:  # a nested function has it
        return ((),)
    steps = [s for s in dis.get_instructions(code) if s.opname != "EXTENDED_ARG"]
    chains: dict[Chain, None] = {}
    for j, step in enumerate(steps):
        named = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if "FAST" in step.opname and first in named:
            single = step.opname in ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW")
            chains[_chain(steps, j) if single else ()] = None
    return tuple(chains)
