r"""Scalar expressions: what a right-hand side computes for one individual.

A small graph of shared nodes. Python's operators build it, so that NumPy's object arrays can carry
it through the operations of a tensor program; it is differentiated symbolically and written out as
Python source for numba.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Union

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
    r"""One operation; ``op`` is "const", "symbol" or the name of a function.

    Args:
        op: The operation.
        args: What it is applied to.
        value: The number of a constant, the name of a symbol.
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
    """A quantity that is known when the source runs."""
    return Node("symbol", value=name)


def as_node(x: Operand) -> Node:
    """A node, from a node or a number."""
    return x if isinstance(x, Node) else const(x)


def _is(node: Node, value: float) -> bool:
    return node.is_const and node.value == value


def apply(op: str, *operands: Operand) -> Node:
    """An operation on nodes and numbers; what is known is computed."""
    args = tuple(as_node(x) for x in operands)
    if all(a.is_const for a in args):
        return const(_compute(op, [float(a.value) for a in args]))
    simple = _simplified(op, args)
    return simple if simple is not None else Node(op, args)


def _simplified(op: str, args: tuple[Node, ...]) -> Node | None:
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
    if exponent == 0:
        return const(1)
    if exponent == int(exponent) and abs(exponent) <= 8:
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
    """Every node below the roots once, arguments first."""
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
    """Names of the symbols below the roots."""
    return {str(n.value) for n in topological(roots) if n.op == "symbol"}


def write(roots: list[Node], results: list[str]) -> list[str]:
    """Statements that assign the roots to the names of the results; equal terms are made once."""
    names: dict[int, str] = {}
    known: dict[str, str] = {}
    lines = []
    for node in topological(roots):
        if node.op == "const":
            names[id(node)] = repr(float(node.value))
            if not math.isfinite(float(node.value)):
                names[id(node)] = f"math.{'nan' if node.value != node.value else 'inf'}"
                if float(node.value) == -math.inf:
                    names[id(node)] = "(-math.inf)"
            elif float(node.value) < 0:
                names[id(node)] = f"({names[id(node)]})"
        elif node.op == "symbol":
            names[id(node)] = str(node.value)
        else:
            term = _term(node, [names[id(arg)] for arg in node.args])
            if term not in known:
                known[term] = f"v{len(known)}"
                lines.append(f"{known[term]} = {term}")
            names[id(node)] = known[term]
    return lines + [f"{r} = {names[id(root)]}" for r, root in zip(results, roots, strict=True)]


def _term(node: Node, args: list[str]) -> str:
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


def evaluate(roots: list[Node], known: dict[str, float]) -> list[float]:
    """Values of expressions where the symbols are known."""
    values: dict[int, float] = {}
    for node in topological(roots):
        if node.op == "const":
            values[id(node)] = float(node.value)
        elif node.op == "symbol":
            values[id(node)] = known[str(node.value)]
        else:
            values[id(node)] = _compute(node.op, [values[id(arg)] for arg in node.args])
    return [values[id(root)] for root in roots]
