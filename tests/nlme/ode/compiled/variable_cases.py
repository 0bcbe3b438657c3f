"""Right-hand sides that read variables, containers, and other functions."""

import enum
import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from .object_cases import Case, Record, config

K = 1.0
NUMBERS = {"a": {"k": 1.0}, "b": [1.0, 2.0]}
ARRAY = np.ones(2)
TENSOR = torch.ones(2, dtype=torch.float64)


class Flow(NamedTuple):
    k: float


class Kind(enum.Enum):
    SLOW = 1.0
    FAST = 2.0


def helper(x):
    return -K * x


def second_helper(x):
    return helper(x)


def with_default(x, k=None):
    return -(K if k is None else k) * x


def down(count, x):
    return -K * x if count == 0 else down(count - 1, x)


HELPER = helper


def _set(name, value):
    return lambda: globals().__setitem__(name, value)


def module_function():
    config.rate = lambda: K
    return Case(lambda t, x, p: -config.rate() * x, _set("K", 2.0))


def global_number():
    return Case(lambda t, x, p: -K * x, _set("K", 2.0))


def global_in_a_lambda():
    return Case(lambda t, x, p: (lambda y: -K * y)(x), _set("K", 2.0))


def global_in_a_comprehension():
    return Case(lambda t, x, p: sum([-K * x / 2 for _ in range(2)]), _set("K", 2.0))


def global_in_a_nested_function():
    def f(t, x, p):
        def inner():
            def innermost():
                return K

            return innermost()

        return -inner() * x

    return Case(f, _set("K", 2.0))


def global_of_a_called_function():
    return Case(lambda t, x, p: second_helper(x), _set("K", 2.0))


def called_function_replaced():
    return Case(lambda t, x, p: second_helper(x), _set("helper", lambda x: -2 * x))


def recursion():
    return Case(lambda t, x, p: down(3, x), _set("K", 2.0))


def container():
    return Case(lambda t, x, p: -NUMBERS["a"]["k"] * x, lambda: NUMBERS["a"].update(k=2.0))


def container_by_method():
    return Case(lambda t, x, p: -NUMBERS.get("b")[0] * x, lambda: NUMBERS["b"].reverse())


def array():
    return Case(lambda t, x, p: -float(ARRAY[0]) * x, lambda: ARRAY.fill(2.0))


def array_by_method():
    return Case(lambda t, x, p: -float(ARRAY.mean()) * x, lambda: ARRAY.fill(2.0))


def tensor():
    return Case(lambda t, x, p: -TENSOR[0] * x, lambda: TENSOR.fill_(2.0))


def tensor_in_a_container():
    both = {"k": [TENSOR]}
    return Case(lambda t, x, p: -both["k"][0][0] * x, lambda: TENSOR.fill_(2.0))


def tensor_by_method():
    return Case(lambda t, x, p: -TENSOR.mean() * x, lambda: TENSOR.mul_(2.0))


def parameter_of_a_module():
    net = torch.nn.Linear(1, 1, dtype=torch.float64).requires_grad_(False)
    net.weight.fill_(-1.0)
    net.bias.fill_(0.0)
    return Case(lambda t, x, p: net(x), lambda: net.weight.fill_(-2.0))


def closure():
    k = 1.0

    def change():
        nonlocal k
        k = 2.0

    return Case(lambda t, x, p: -k * x, change)


def closure_of_a_nested_function():
    k = 1.0

    def change():
        nonlocal k
        k = 2.0

    return Case(lambda t, x, p: sum([-k * y for y in [x]]), change)


def default_argument():
    def f(t, x, p, k=[1.0]):  # noqa: B006
        return -k[0] * x

    return Case(f, lambda: f.__defaults__[0].__setitem__(0, 2.0))


def keyword_default():
    def f(t, x, p, *, k=1.0):
        return -k * x

    return Case(f, lambda: setattr(f, "__kwdefaults__", {"k": 2.0}))


def default_of_a_called_function():
    def change():
        with_default.__defaults__ = (2.0,)

    return Case(lambda t, x, p: with_default(x), change)


def attribute_of_the_function():
    def f(t, x, p):
        return -f.k * x

    f.k = 1.0
    return Case(f, lambda: setattr(f, "k", 2.0))


def code_replaced():
    def f(t, x, p):
        return -x

    return Case(f, lambda: setattr(f, "__code__", (lambda t, x, p: -2 * x).__code__))


def partial():
    box = [1.0]
    return Case(
        functools.partial(lambda t, x, p, k: -k[0] * x, k=box), lambda: box.__setitem__(0, 2.0)
    )


def wrapped():
    @functools.wraps(torch.exp)
    def rate(x):
        return -K * x

    return Case(lambda t, x, p: rate(x), _set("K", 2.0))


def wrapped_by_the_library():
    rate = torch.no_grad()(lambda x: -K * x)
    return Case(lambda t, x, p: rate(x), _set("K", 2.0))


def cached_function():
    @functools.lru_cache
    def rate():
        return K

    def change():
        globals()["K"] = 2.0
        rate.cache_clear()

    return Case(lambda t, x, p: -rate() * x, change, False)


def named_tuple():
    box = [Flow(1.0)]
    return Case(lambda t, x, p: -box[0].k * x, lambda: box.__setitem__(0, Flow(2.0)))


def record():
    box = [Record(1.0)]
    return Case(lambda t, x, p: -box[0].k * x, lambda: setattr(box[0], "k", 2.0))


def enumeration():
    box = [Kind.SLOW]
    return Case(lambda t, x, p: -box[0].value * x, lambda: box.__setitem__(0, Kind.FAST))


def by_globals():
    return Case(lambda t, x, p: -globals()["K"] * x, _set("K", 2.0), False)


def by_eval():
    return Case(lambda t, x, p: -eval("K") * x, _set("K", 2.0), False)


def by_import():
    def f(t, x, p):
        from tests.nlme.ode.compiled import variable_cases

        return -variable_cases.K * x

    return Case(f, _set("K", 2.0), False)


def iterator():
    values = iter([1.0] * 1000)
    box = [values]
    return Case(
        lambda t, x, p: -next(box[0]) * x, lambda: box.__setitem__(0, iter([2.0] * 1000)), False
    )


def builtin_shadowed():
    return Case(lambda t, x, p: -abs(-1.0) * x, _set("abs", lambda x: 2.0))


def sign_of_zero():
    globals()["K"] = -0.0
    return Case(lambda t, x, p: -(1.5 + math.copysign(0.5, K)) * x, _set("K", 0.0))


def kind_of_number():
    return Case(lambda t, x, p: -(2.0 if isinstance(K, int) else 1.0) * x, _set("K", 1))


CASES = (
    module_function,
    global_number,
    global_in_a_lambda,
    global_in_a_comprehension,
    global_in_a_nested_function,
    global_of_a_called_function,
    called_function_replaced,
    recursion,
    container,
    container_by_method,
    array,
    array_by_method,
    tensor,
    tensor_in_a_container,
    tensor_by_method,
    parameter_of_a_module,
    closure,
    closure_of_a_nested_function,
    default_argument,
    keyword_default,
    default_of_a_called_function,
    attribute_of_the_function,
    code_replaced,
    partial,
    wrapped,
    wrapped_by_the_library,
    cached_function,
    named_tuple,
    record,
    enumeration,
    by_globals,
    by_eval,
    by_import,
    iterator,
    builtin_shadowed,
    sign_of_zero,
    kind_of_number,
)


def restore():
    """Set the state of this module, which every case changes, to its first values."""
    space = globals()
    space.update(K=1.0, NUMBERS={"a": {"k": 1.0}, "b": [1.0, 2.0]}, helper=HELPER)
    space.pop("abs", None)
    ARRAY.fill(1.0)
    TENSOR.fill_(1.0)
    with_default.__defaults__ = (None,)
