r"""From a right-hand side in torch to scalar expressions for one individual.

The function ``f(t, x, parameters)`` is traced once on a batch of three individuals (``torch.fx``,
down to dispatcher operators). The operators of the graph are then repeated on NumPy arrays of
expressions. The result of an individual may only depend on its own inputs, and the expressions of
all individuals must be the same: then those of one individual describe the function.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from .expressions import Node, as_node, const, symbol, symbols, write
from .torch_operators import NotTraceable as NotTraceable
from .torch_operators import operator_of

Array = NDArray[np.object_]
RightHandSide = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class TracingSettings:
    r"""The inputs on which a function is traced.

    Args:
        batch: Individuals. At least two are needed to see that individuals are mixed or treated
            differently.
        max_reason: Characters of an error of torch that a message quotes.
    """

    batch: int = 3
    max_reason: int = 200


DEFAULTS = TracingSettings()


@dataclass(frozen=True, eq=False)
class Traced:
    r"""dx/dt of one individual.

    Args:
        slopes: One expression per state, of the symbols ``t``, ``x0``, ``x1``, ... (states) and
            ``p0``, ``p1``, ... (parameters).
        num_parameters: Number of parameters.
    """

    slopes: list[Node]
    num_parameters: int

    @property
    def num_states(self) -> int:
        """Number of states."""
        return len(self.slopes)


def trace(
    f: RightHandSide,
    num_states: int,
    names: Sequence[str],
) -> Traced:
    r"""Scalar expressions of ``f(t, x, parameters)``.

    Args:
        f: Right-hand side.
        num_states: Number of states.
        names: Names of the parameters.

    Raises:
        NotTraceable: The function branches on values, mixes individuals, or uses an operator that
            is not known.
    """
    batch = DEFAULTS.batch

    def positional(t: Tensor, x: Tensor, *values: Tensor) -> Tensor:
        return f(t, x, dict(zip(names, values, strict=True)))

    like = torch.linspace(0.3, 0.7, batch, dtype=torch.float64)
    states = like.unsqueeze(-1) + torch.arange(num_states, dtype=torch.float64) / 10
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(positional)(like, states, *[like + 0.1 for _ in names])
        result = _evaluated(graph, _symbolic_inputs(num_states, len(names)))
    except NotTraceable:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0][: DEFAULTS.max_reason]
        raise NotTraceable(f"{type(error).__name__}: {reason}") from error
    if result.shape != (batch, num_states):
        raise NotTraceable(f"it returns shape {result.shape} for a batch of {batch}")
    if _source_of_row(result, 0) != _source_of_row(result, batch - 1):
        raise NotTraceable("individuals of a batch are treated differently")
    renamed: dict[int, Node] = {}
    return Traced([_renamed(as_node(x), renamed) for x in result[0]], len(names))


def _source_of_row(result: Array, row: int) -> str:
    """Source of the expressions of one individual, without the number of the individual."""
    roots = [as_node(x) for x in result[row]]
    if any(not name.endswith(f"_{row}") for name in symbols(roots)):
        raise NotTraceable("the individuals of a batch are mixed")
    lines = write(roots, [f"y{s}" for s in range(len(roots))])
    return "\n".join(lines).replace(f"_{row}", "")


def _symbolic_inputs(num_states: int, num_parameters: int) -> list[Array]:
    """Time ``(individual,)``, states ``(individual, state)``, parameters ``(individual,)`` each."""
    states = [_symbols(f"x{s}") for s in range(num_states)]
    parameters = [_symbols(f"p{j}") for j in range(num_parameters)]
    return [_symbols("t"), np.stack(states, -1), *parameters]


def _symbols(name: str) -> Array:
    """One symbol per individual."""
    return np.array([symbol(f"{name}_{row}") for row in range(DEFAULTS.batch)], dtype=object)


def _renamed(node: Node, known: dict[int, Node]) -> Node:
    """The expression of the first individual, with symbols without its number."""
    if id(node) not in known:
        if node.op == "symbol":
            known[id(node)] = symbol(str(node.value).removesuffix("_0"))
        elif node.op == "const":
            known[id(node)] = node
        else:
            args = tuple(_renamed(arg, known) for arg in node.args)
            known[id(node)] = Node(node.op, args, node.value)
    return known[id(node)]


def _evaluated(graph: Any, inputs: list[Array]) -> Array:
    """Result of a graph of torch operators for inputs that are arrays of expressions."""
    values: dict[Any, Any] = {}
    remaining = iter(inputs)

    def values_of(x: Any) -> Any:
        return torch.fx.node.map_arg(x, lambda n: values[n])

    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(remaining)
        elif node.op == "get_attr":
            constant = getattr(graph, node.target)
            values[node] = np.vectorize(const, otypes=[object])(constant.double().numpy())
        elif node.op == "call_function":
            operator = operator_of(node.target)
            values[node] = operator(*values_of(node.args), **values_of(dict(node.kwargs)))
        elif node.op == "output":
            result = node.args[0]
            return np.asarray(values[result if not isinstance(result, tuple | list) else result[0]])
    raise NotTraceable("it returns nothing")
