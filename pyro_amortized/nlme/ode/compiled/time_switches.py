r"""The times at which a right-hand side changes, read from its expressions.

A comparison of the time with a number or a parameter (``t >= start``, ``(t - start).clamp(min=0)``)
changes its outcome at a time that the expressions give. The control of the error of a step does not
see a change that lies between the points where it evaluates the right-hand side: a step over one
may be wrong by far more than the tolerance. Solutions at neighbouring parameters then differ, and
log densities of precise data jumped by 0.3.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .expressions import FUNCTIONS, Node, apply, computed, symbols, topological, write

COMPARISONS = frozenset({"lt", "le", "gt", "ge", "min", "max"})
TENSOR_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in FUNCTIONS},
    **{n: getattr(operator, n) for n in ("add", "sub", "mul", "pow", "lt", "le", "gt", "ge")},
    **{n: getattr(operator, n) for n in ("eq", "ne")},
    "div": operator.truediv,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "min": torch.minimum,
    "max": torch.maximum,
    "sign": torch.sign,
}


@dataclass(frozen=True)
class SwitchSettings:
    """When a difference is linear in the time: its second difference is below this part of its
    values. Other comparisons, for instance of a sine, are left to the control of the error.
    """

    max_curvature: float = 1e-6


DEFAULTS = SwitchSettings()


def time_differences(slopes: list[Node]) -> tuple[Node, ...]:
    """The differences of both sides of all comparisons of the time with numbers and parameters;
    those that contain states are left out.
    """
    found: dict[str, Node] = {}
    for node in topological(slopes):
        if node.op in COMPARISONS:
            difference = apply("sub", *node.args)
            names = symbols([difference])
            if "t" in names and not any(name.startswith("x") for name in names):
                found.setdefault("\n".join(write([difference], ["y"])), difference)
    return tuple(found.values())


def switch_times(
    differences: tuple[Node, ...], parameters: Mapping[str, Tensor], like: Tensor
) -> Tensor:
    r"""The times at which the differences change their sign.

    Args:
        differences: From :func:`time_differences`.
        parameters: By name, in the order of the trace, shape ``(row, piece)``.
        like: A tensor of the dtype, shape ``(row, 1)``.

    Returns:
        Shape ``(row, switch)``, infinite where a difference does not change or is not linear.
    """
    columns = []
    for difference in differences:
        first, second, third = (
            _value(difference, parameters, torch.full_like(like, t)) for t in (0.0, 1.0, 2.0)
        )
        slope, size = second - first, first.abs() + second.abs() + third.abs()
        is_linear = (third - 2 * second + first).abs() <= DEFAULTS.max_curvature * size
        time = -first / slope
        columns.append(torch.where(is_linear & (slope != 0), time, torch.inf))
    return torch.cat(columns, 1).nan_to_num(torch.inf, torch.inf, torch.inf)


def _value(node: Node, parameters: Mapping[str, Tensor], time: Tensor) -> Tensor:
    """An expression at times ``(row, 1)``, for every row and piece."""
    known = {f"p{j}": x for j, x in enumerate(parameters.values())} | {"t": time}

    def compute(op: str, values: list[Tensor]) -> Tensor:
        return TENSOR_FUNCTIONS[op](*values).to(time.dtype)

    return computed([node], known, lambda x: torch.full_like(time, x), compute)[0]
