r"""Operators of torch on arrays of scalar expressions.

A tensor is represented by a NumPy array of the same shape whose entries are nodes of
:mod:`~.expressions`. Each entry of ``OPERATORS`` maps the name of a dispatcher operator of torch to
a function that takes such arrays, and the other arguments of the operator, and returns the array of
the result. Operators that are missing here cannot be compiled.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .expressions import FUNCTIONS, Node, apply, as_node, const


class NotTraceable(Exception):
    """A right-hand side that cannot become scalar expressions; the message gives the reason."""


def _elementwise(op: str, num_args: int) -> Callable[..., Any]:
    """An operation of expressions, applied to each entry."""
    vectorized = np.frompyfunc(lambda *args: apply(op, *args), num_args, 1)

    def call(*args: Any, **ignored: Any) -> Any:
        return np.asarray(vectorized(*args[:num_args]), dtype=object)

    return call


def _scaled(op: str) -> Callable[..., Any]:
    """An addition or subtraction with torch's factor ``alpha`` of the second term."""
    unscaled = _elementwise(op, 2)
    return lambda a, b, alpha=1, **_: unscaled(a, b if alpha == 1 else MUL(b, alpha))


def _divide(a: Any, b: Any, rounding_mode: str | None = None, **_: Any) -> Any:
    quotient = _elementwise("div", 2)(a, b)
    if rounding_mode is None:
        return quotient
    if rounding_mode == "floor":
        return _elementwise("floor", 1)(quotient)
    raise NotTraceable(f"division with rounding_mode={rounding_mode!r}")


def _of_scalars(formula: Callable[..., Node]) -> Callable[..., Any]:
    """A formula of one expression, applied to each entry."""

    def call(x: Any, *args: Any, **_: Any) -> Any:
        result = np.frompyfunc(lambda e: formula(as_node(e), *args), 1, 1)(x)
        return np.asarray(result, dtype=object)

    return call


def _clamp(x: Node, low: float | None = None, high: float | None = None) -> Node:
    x = apply("max", x, low) if low is not None else x
    return apply("min", x, high) if high is not None else x


def _softplus(x: Node, beta: float = 1, threshold: float = 20) -> Node:
    soft = apply("log1p", apply("exp", x * beta)) / beta
    return apply("where", apply("gt", x * beta, threshold), x, soft)


def _axis(dims: Any, count: int) -> tuple[int, ...] | None:
    """Axes from torch's dimensions, which may be one, several, or none for all."""
    if dims is None or dims == []:
        return None
    return tuple(d % count for d in ([dims] if isinstance(dims, int) else dims))


def _sum(x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    return np.asarray(np.sum(x, axis=_axis(dims, x.ndim), keepdims=keepdim), dtype=object)


def _mean(x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    total = _sum(x, dims, keepdim)
    return _divide(total, x.size / max(total.size, 1))


def _prod(x: Any, dim: int, keepdim: bool = False, **_: Any) -> Any:
    return np.asarray(np.prod(x, axis=dim, keepdims=keepdim), dtype=object)


def _slice(
    x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    end = None if end is None or end > x.shape[dim] else end
    return x[(*[slice(None)] * (dim % x.ndim), slice(start, end, step))]


def _expand(x: Any, sizes: Sequence[int], **_: Any) -> Any:
    shape = list(sizes)
    for back in range(1, x.ndim + 1):
        if shape[-back] == -1:
            shape[-back] = x.shape[-back]
    return np.broadcast_to(x, shape)


def _matmul(a: Any, b: Any) -> Any:
    if a.ndim == 1 and b.ndim == 1:
        return np.asarray(sum(a * b), dtype=object)
    rows = a if a.ndim > 1 else a[None]
    columns = b if b.ndim > 1 else b[:, None]
    product = np.sum(rows[..., :, :, None] * columns[..., None, :, :], axis=-2)
    product = product if a.ndim > 1 else product[..., 0, :]
    return product if b.ndim > 1 else product[..., 0]


def _full(size: Sequence[int], value: float, **_: Any) -> Any:
    return np.full(tuple(size), const(value), dtype=object)


def _index(x: Any, indices: Sequence[Any]) -> Any:
    positions: list[Any] = []
    for index in indices:
        if index is None:
            positions.append(slice(None))
            continue
        numbers = [as_node(e) for e in np.asarray(index).ravel()]
        if not all(n.is_const for n in numbers):
            raise NotTraceable("an index depends on values")
        position = np.array([int(float(n.value)) for n in numbers]).reshape(np.shape(index))
        positions.append(position)
    return x[tuple(positions)]


def _pow(a: Any, b: Any, **_: Any) -> Any:
    return _elementwise("pow", 2)(a, b)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return _elementwise("where", 3)(condition, a, b)


MUL = _elementwise("mul", 2)
_unchanged: Callable[..., Any] = lambda x, *args, **kwargs: x  # noqa: E731
_sigmoid = _of_scalars(lambda x: 1 / (1 + apply("exp", -x)))

OPERATORS: dict[str, Callable[..., Any]] = {
    name: _elementwise(name, 1) for name in FUNCTIONS if name not in ("asin", "acos", "atan")
}
OPERATORS |= {name: _elementwise(name, 1) for name in ("asin", "acos", "atan", "sign")}
OPERATORS |= {
    name: _elementwise(op, 2)
    for name, op in {
        "mul": "mul",
        "lt": "lt",
        "le": "le",
        "gt": "gt",
        "ge": "ge",
        "eq": "eq",
        "ne": "ne",
        "maximum": "max",
        "minimum": "min",
        "logical_and": "and",
        "logical_or": "or",
        "bitwise_and": "and",
        "bitwise_or": "or",
        "__and__": "and",
        "__or__": "or",
    }.items()
}
OPERATORS |= {
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": lambda a, b, alpha=1, **_: _scaled("sub")(b, a, alpha),
    "div": _divide,
    "true_divide": _divide,
    "pow": _pow,
    "where": _where,
    "neg": _of_scalars(lambda x: -x),
    "reciprocal": _of_scalars(lambda x: 1 / x),
    "rsqrt": _of_scalars(lambda x: 1 / apply("sqrt", x)),
    "square": _of_scalars(lambda x: x * x),
    "sigmoid": _sigmoid,
    "softplus": _of_scalars(_softplus),
    "relu": _of_scalars(lambda x: apply("max", x, 0.0)),
    "log2": _of_scalars(lambda x: apply("log", x) / math.log(2)),
    "log10": _of_scalars(lambda x: apply("log", x) / math.log(10)),
    "exp2": _of_scalars(lambda x: apply("exp", x * math.log(2))),
    "logical_not": _elementwise("not", 1),
    "bitwise_not": _elementwise("not", 1),
    "sgn": _elementwise("sign", 1),
    "clamp": lambda x, low=None, high=None, min=None, max=None: _of_scalars(_clamp)(
        x, min if low is None else low, max if high is None else high
    ),
    "clamp_min": lambda x, low: _elementwise("max", 2)(x, low),
    "clamp_max": lambda x, high: _elementwise("min", 2)(x, high),
    "sum": _sum,
    "mean": _mean,
    "prod": _prod,
    "dot": _matmul,
    "mv": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "matmul": _matmul,
    "addmm": lambda c, a, b, **_: _elementwise("add", 2)(c, _matmul(a, b)),
    "view": lambda x, size: x.reshape(tuple(size)),
    "_unsafe_view": lambda x, size: x.reshape(tuple(size)),
    "reshape": lambda x, size: x.reshape(tuple(size)),
    "unsqueeze": lambda x, dim: np.expand_dims(x, dim if dim >= 0 else dim + x.ndim + 1),
    "squeeze": lambda x, dim=None: np.squeeze(x, dim if not isinstance(dim, list) else tuple(dim)),
    "select": lambda x, dim, index: np.take(x, index, axis=dim),
    "slice": _slice,
    "split": lambda x, size, dim=0: np.split(x, range(size, x.shape[dim], size), axis=dim),
    "split_with_sizes": lambda x, sizes, dim=0: np.split(x, np.cumsum(sizes)[:-1], axis=dim),
    "unbind": lambda x, dim=0: [np.take(x, j, axis=dim) for j in range(x.shape[dim])],
    "stack": lambda xs, dim=0: np.stack(np.broadcast_arrays(*xs), axis=dim),
    "cat": lambda xs, dim=0: np.concatenate(xs, axis=dim),
    "expand": _expand,
    "permute": lambda x, dims: np.transpose(x, dims),
    "t": lambda x: x.T,
    "transpose": lambda x, a, b: np.swapaxes(x, a, b),
    "flip": lambda x, dims: np.flip(x, dims),
    "roll": lambda x, shifts, dims: np.roll(x, shifts, dims),
    "index": _index,
    "repeat": lambda x, sizes: np.tile(x, sizes),
    "zeros_like": lambda x, **_: _full(x.shape, 0.0),
    "ones_like": lambda x, **_: _full(x.shape, 1.0),
    "full_like": lambda x, value, **_: _full(x.shape, value),
    "zeros": lambda size, **_: _full(size, 0.0),
    "ones": lambda size, **_: _full(size, 1.0),
    "full": _full,
    "new_zeros": lambda x, size, **_: _full(size, 0.0),
    "new_ones": lambda x, size, **_: _full(size, 1.0),
    "new_full": lambda x, size, value, **_: _full(size, value),
    "scalar_tensor": lambda value, **_: _full((), value),
    "arange": lambda end, **_: np.vectorize(const, otypes=[object])(np.arange(end)),
    "getitem": lambda xs, index: xs[index],
    "clone": _unchanged,
    "detach": _unchanged,
    "alias": _unchanged,
    "contiguous": _unchanged,
    "_to_copy": _unchanged,
    "lift_fresh_copy": _unchanged,
    "lift_fresh": _unchanged,
}


def operator_of(target: Any) -> Callable[..., Any]:
    r"""The function for a dispatcher operator of torch.

    Raises:
        NotTraceable: The operator is not known.
    """
    name = getattr(target, "__name__", str(target)).split(".")[0]
    if name not in OPERATORS:
        raise NotTraceable(f"the operator {target} is not known")
    return OPERATORS[name]
