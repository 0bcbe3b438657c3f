r"""Changes of scalar expressions: partial derivatives, and terms that are computed only once.

The derivative of an expression follows from the chain rule over its operations,

.. math:: \frac{\partial f(a, b)}{\partial x} = \frac{\partial f}{\partial a}
    \frac{\partial a}{\partial x} + \frac{\partial f}{\partial b} \frac{\partial b}{\partial x} .
"""

import math
from collections.abc import Callable

from .expressions import Node, apply, const, symbol, topological


def hoisted(roots: list[Node], fixed: str) -> tuple[list[Node], list[Node]]:
    r"""Separate the terms that depend on fixed symbols alone, so that they are computed once.

    Division by a fixed term becomes multiplication by its inverse.

    Args:
        roots: Expressions.
        fixed: First letter of the names of the fixed symbols.

    Returns:
        The expressions with symbols ``q0``, ``q1``, ... in place of the fixed terms, and these
        terms.
    """
    rewritten: dict[int, Node] = {}
    is_fixed: dict[int, bool] = {}
    for node in topological(roots):
        args = tuple(rewritten[id(arg)] for arg in node.args)
        if node.op == "symbol":
            node_fixed = str(node.value).startswith(fixed)
        else:
            node_fixed = all(is_fixed[id(arg)] for arg in node.args)
        if node.op == "div" and not node_fixed and is_fixed[id(node.args[1])]:
            inverse = apply("div", 1.0, args[1])
            rewritten[id(inverse)], is_fixed[id(inverse)] = inverse, True
            args, node_op = (args[0], inverse), "mul"
        else:
            node_op = node.op
        new = Node(node_op, args, node.value) if args else node
        rewritten[id(node)], is_fixed[id(node)] = new, node_fixed
        rewritten[id(new)], is_fixed[id(new)] = new, node_fixed
    replaced: dict[int, Node] = {}
    fixed_terms: list[Node] = []

    def replace(node: Node) -> Node:
        if id(node) not in replaced:
            if is_fixed[id(node)] and node.args:
                fixed_terms.append(node)
                replaced[id(node)] = symbol(f"q{len(fixed_terms) - 1}")
            elif node.args:
                args = tuple(replace(a) for a in node.args)
                replaced[id(node)] = Node(node.op, args, node.value)
            else:
                replaced[id(node)] = node
        return replaced[id(node)]

    return [replace(rewritten[id(root)]) for root in roots], fixed_terms


def derivatives(root: Node, names: list[str]) -> list[Node]:
    """Partial derivatives of an expression with respect to the named symbols."""
    zero, one = const(0), const(1)
    partials: dict[int, dict[str, Node]] = {}
    for node in topological([root]):
        if node.op == "symbol":
            partials[id(node)] = {str(node.value): one} if node.value in names else {}
            continue
        total: dict[str, Node] = {}
        for place, arg in enumerate(node.args):
            inner = partials[id(arg)]
            if not inner:
                continue
            outer = _partial(node, place)
            for name, part in inner.items():
                total[name] = total.get(name, zero) + outer * part
        partials[id(node)] = total
    return [partials[id(root)].get(name, zero) for name in names]


def _partial(node: Node, place: int) -> Node:
    """Derivative of an operation with respect to one of its operands."""
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
        values = (1.0, 0.0) if place == 1 else (0.0, 1.0)
        return const(0) if place == 0 else apply("where", x, *values)
    if op in ("min", "max"):
        is_first = apply("lt" if op == "min" else "gt", x, args[1])
        return apply("where", is_first, *((1.0, 0.0) if place == 0 else (0.0, 1.0)))
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
