r"""Scalar expressions: the computation of a right-hand side for one individual.

An expression is a graph of nodes, in which equal terms may be shared. Python's operators make new
nodes, so the operations of a function in torch can be applied to NumPy arrays of nodes. Expressions
are simplified when they are made, differentiated in :mod:`~.derivatives`, and written as Python
source for numba by :func:`write`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, Union


@dataclass(frozen=True)
class SimplificationSettings:
    r"""When a power is written as products.

    Args:
        max_exponent: Largest whole exponent, by absolute value. Up to 8, at most four products are
            needed.
    """

    max_exponent: int = 8


DEFAULTS = SimplificationSettings()

Value = TypeVar("Value")
Number = float | int | bool
Operand = Union["Node", Number]

FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "tanh": math.tanh,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "atan": math.atan,
    "asin": math.asin,
    "acos": math.acos,
    "erf": math.erf,
    "floor": math.floor,
    "ceil": math.ceil,
    "abs": abs,
}
INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "pow": "**",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "and",
    "or": "or",
}


@dataclass(frozen=True, eq=False)
class Node:
    r"""A number, a symbol, or an operation.

    Args:
        op: "const", "symbol", or the name of the operation.
        args: The operands.
        value: The number, or the name of the symbol.
    """

    op: str
    args: tuple["Node", ...] = ()
    value: float | str = 0.0

    def __add__(self, other: Operand) -> "Node":
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> "Node":
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> "Node":
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> "Node":
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> "Node":
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> "Node":
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> "Node":
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> "Node":
        return apply("div", other, self)

    def __pow__(self, other: Operand) -> "Node":
        return apply("pow", self, other)

    def __rpow__(self, other: Operand) -> "Node":
        return apply("pow", other, self)

    def __neg__(self) -> "Node":
        return apply("mul", -1.0, self)

    @property
    def is_const(self) -> bool:
        """Whether this is a number."""
        return self.op == "const"


def const(value: Number) -> Node:
    """A number."""
    return Node("const", value=float(value))


def symbol(name: str) -> Node:
    """A quantity whose value is known when the source runs."""
    return Node("symbol", value=name)


def as_node(x: Operand) -> Node:
    """A node, from a node or a number."""
    return x if isinstance(x, Node) else const(x)


def _is(node: Node, value: float) -> bool:
    return node.is_const and node.value == value


def apply(op: str, *operands: Operand) -> Node:
    """The node of an operation, simplified; an operation on numbers alone is computed."""
    args = tuple(as_node(x) for x in operands)
    if all(a.is_const for a in args):
        return const(_compute(op, [float(a.value) for a in args]))
    simple = _simplified(op, args)
    return simple if simple is not None else Node(op, args)


def _simplified(op: str, args: tuple[Node, ...]) -> Node | None:
    """An equal and simpler expression, or None."""
    first, last = args[0], args[-1]
    if op == "add":
        return last if _is(first, 0) else first if _is(last, 0) else None
    if op == "sub":
        return first if _is(last, 0) else None
    if op == "mul":
        if _is(first, 0) or _is(last, 0):
            return const(0)
        return last if _is(first, 1) else first if _is(last, 1) else None
    if op == "div":
        return const(0) if _is(first, 0) else first if _is(last, 1) else None
    if op == "pow" and last.is_const:
        return _power(first, float(last.value))
    if op == "where" and first.is_const:
        return args[1] if first.value else args[2]
    return None


def _power(base: Node, exponent: float) -> Node | None:
    """A power by repeated squaring or a square root, or None."""
    if exponent == 0:
        return const(1)
    if exponent == int(exponent) and abs(exponent) <= DEFAULTS.max_exponent:
        if exponent < 0:
            return apply("div", 1.0, apply("pow", base, -exponent))
        half = int(exponent) // 2
        if exponent == 1:
            return base
        root = apply("pow", base, half)
        square = apply("mul", root, root)
        return apply("mul", square, base) if exponent % 2 else square
    if exponent == 0.5:
        return apply("sqrt", base)
    return None


def _compute(op: str, values: list[float]) -> float:
    """Value of an operation; NaN where it is not defined."""
    if op == "where":
        return values[1] if values[0] else values[2]
    if op in ("min", "max"):
        return min(values) if op == "min" else max(values)
    if op == "sign":
        return math.copysign(1.0, values[0]) if values[0] else 0.0
    if op == "not":
        return float(not values[0])
    try:
        if op in FUNCTIONS:
            return float(FUNCTIONS[op](values[0]))
        return float(eval(f"a {INFIX[op]} b", {"a": values[0], "b": values[1]}))
    except (ArithmeticError, ValueError):
        return math.nan


def topological(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node of the expressions once, operands first."""
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((arg, False) for arg in node.args if id(arg) not in seen)


def symbols(roots: Iterable[Node]) -> set[str]:
    """Names of the symbols in the expressions."""
    return {str(n.value) for n in topological(roots) if n.op == "symbol"}


def write(roots: list[Node], results: list[str]) -> list[str]:
    """Statements that assign the expressions to the names of the results.

    Equal terms are computed once.
    """
    names: dict[int, str] = {}
    variables: dict[str, str] = {}
    lines = []
    for node in topological(roots):
        if node.op == "const":
            names[id(node)] = _number(float(node.value))
        elif node.op == "symbol":
            names[id(node)] = str(node.value)
        else:
            term = _term(node, [names[id(arg)] for arg in node.args])
            if term not in variables:
                variables[term] = f"v{len(variables)}"
                lines.append(f"{variables[term]} = {term}")
            names[id(node)] = variables[term]
    return lines + [f"{r} = {names[id(root)]}" for r, root in zip(results, roots, strict=True)]


def _number(value: float) -> str:
    """Source of a number; negative numbers in parentheses."""
    if math.isnan(value):
        return "math.nan"
    if math.isinf(value):
        return "math.inf" if value > 0 else "(-math.inf)"
    return f"({value!r})" if value < 0 else repr(value)


def _term(node: Node, args: list[str]) -> str:
    """Source of an operation on operands that have names."""
    if node.op in INFIX:
        return f"{args[0]} {INFIX[node.op]} {args[1]}"
    if node.op == "where":
        return f"{args[1]} if {args[0]} else {args[2]}"
    if node.op == "not":
        return f"not {args[0]}"
    if node.op in ("min", "max"):
        sign = "<" if node.op == "min" else ">"
        return f"{args[0]} if {args[0]} {sign} {args[1]} or {args[0]} != {args[0]} else {args[1]}"
    if node.op == "sign":
        return f"(1.0 if {args[0]} > 0 else (-1.0 if {args[0]} < 0 else 0.0))"
    if node.op == "abs":
        return f"abs({args[0]})"
    return f"math.{node.op}({args[0]})"


def evaluate(roots: list[Node], known: Mapping[str, float]) -> list[float]:
    """Values of expressions for known values of the symbols."""
    return computed(roots, known, float, _compute)


def computed(
    roots: Iterable[Node],
    known: Mapping[str, Value],
    number: Callable[[float], Value],
    compute: Callable[[str, list[Value]], Value],
) -> list[Value]:
    """Values of expressions of any kind, from those of the symbols, what stands for a number, and
    what computes an operation.
    """
    values: dict[int, Value] = {}
    roots = list(roots)
    for node in topological(roots):
        if node.op == "const":
            values[id(node)] = number(float(node.value))
        elif node.op == "symbol":
            values[id(node)] = known[str(node.value)]
        else:
            values[id(node)] = compute(node.op, [values[id(arg)] for arg in node.args])
    return [values[id(root)] for root in roots]
