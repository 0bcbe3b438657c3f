r"""Rewriting scalar expressions: what is fixed taken out, derivatives."""

import math
from collections.abc import Callable

from .expressions import Node, apply, const, symbol, topological


def hoisted(roots: list[Node], fixed: str) -> tuple[list[Node], list[Node]]:
    r"""Take out what depends on fixed symbols alone, to be computed once.

    Division by something fixed becomes multiplication by its inverse.

    Args:
        roots: Expressions.
        fixed: First letter of the names of the fixed symbols.

    Returns:
        The expressions with symbols ``q0``, ``q1``, ... and what these stand for.
    """
    made: dict[int, Node] = {}
    is_fixed: dict[int, bool] = {}
    for node in topological(roots):
        args = tuple(made[id(arg)] for arg in node.args)
        if node.op == "symbol":
            known = str(node.value).startswith(fixed)
        else:
            known = all(is_fixed[id(arg)] for arg in node.args)
        if node.op == "div" and not known and is_fixed[id(node.args[1])]:
            inverse = apply("div", 1.0, args[1])
            made[id(inverse)], is_fixed[id(inverse)] = inverse, True
            args, node_op = (args[0], inverse), "mul"
        else:
            node_op = node.op
        new = Node(node_op, args, node.value) if args else node
        made[id(node)], is_fixed[id(node)] = new, known
        made[id(new)], is_fixed[id(new)] = new, known
    taken: dict[int, Node] = {}
    values: list[Node] = []

    def placed(node: Node) -> Node:
        if id(node) not in taken:
            if is_fixed[id(node)] and node.args:
                values.append(node)
                taken[id(node)] = symbol(f"q{len(values) - 1}")
            elif node.args:
                taken[id(node)] = Node(node.op, tuple(placed(a) for a in node.args), node.value)
            else:
                taken[id(node)] = node
        return taken[id(node)]

    return [placed(made[id(root)]) for root in roots], values


def derivatives(root: Node, names: list[str]) -> list[Node]:
    """Partial derivatives of an expression by the named symbols."""
    zero, one = const(0), const(1)
    found: dict[int, dict[str, Node]] = {}
    for node in topological([root]):
        if node.op == "symbol":
            found[id(node)] = {str(node.value): one} if node.value in names else {}
            continue
        total: dict[str, Node] = {}
        for place, arg in enumerate(node.args):
            inner = found[id(arg)]
            if not inner:
                continue
            outer = _partial(node, place)
            for name, part in inner.items():
                total[name] = total.get(name, zero) + outer * part
        found[id(node)] = total
    return [found[id(root)].get(name, zero) for name in names]


def _partial(node: Node, place: int) -> Node:
    """Derivative of an operation by one of its arguments."""
    op, args = node.op, node.args
    x = args[0]
    if op in ("add", "sub"):
        return const(-1 if op == "sub" and place else 1)
    if op == "mul":
        return args[1 - place]
    if op == "div":
        return 1 / args[1] if place == 0 else -(node / args[1])
    if op == "pow":
        if place == 0:
            return args[1] * x ** (args[1] - 1)
        return apply("where", apply("gt", x, 0.0), node * apply("log", x), 0.0)
    if op == "where":
        picked = (1.0, 0.0) if place == 1 else (0.0, 1.0)
        return const(0) if place == 0 else apply("where", x, *picked)
    if op in ("min", "max"):
        chosen = apply("lt" if op == "min" else "gt", x, args[1])
        return apply("where", chosen, *((1.0, 0.0) if place == 0 else (0.0, 1.0)))
    rule = _RULES.get(op)
    return rule(x, node) if rule is not None else const(0)


_RULES: dict[str, Callable[[Node, Node], Node]] = {
    "exp": lambda x, y: y,
    "expm1": lambda x, y: y + 1,
    "log": lambda x, y: 1 / x,
    "log1p": lambda x, y: 1 / (1 + x),
    "sqrt": lambda x, y: 0.5 / y,
    "sin": lambda x, y: apply("cos", x),
    "cos": lambda x, y: -apply("sin", x),
    "tan": lambda x, y: 1 + y * y,
    "tanh": lambda x, y: 1 - y * y,
    "sinh": lambda x, y: apply("cosh", x),
    "cosh": lambda x, y: apply("sinh", x),
    "atan": lambda x, y: 1 / (1 + x * x),
    "asin": lambda x, y: 1 / apply("sqrt", 1 - x * x),
    "acos": lambda x, y: -1 / apply("sqrt", 1 - x * x),
    "erf": lambda x, y: 2 / math.sqrt(math.pi) * apply("exp", -(x * x)),
    "abs": lambda x, y: apply("sign", x),
}
