"""Solutions and compiled systems change with whatever a right-hand side reads.

Each case is one way in which a Python function can depend on state. The state changes between two
calls of the solver that share a cache.
"""

import dataclasses
import enum
import functools
import math
import types
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.nlme.ode.compiled import systems as compiled
from pyro_amortized.nlme.ode.compiled.expressions import evaluate
from pyro_amortized.nlme.ode.compiled.function_keys import key_of
from pyro_amortized.runtime.solver_context import SolutionCache, caching

TIMES = torch.tensor([[0.0, 1.0]], dtype=torch.float64)

config = types.ModuleType("config")
config.k = 1.0
config.inner = types.SimpleNamespace(deep=types.SimpleNamespace(k=1.0))
K = 1.0
NUMBERS = {"a": {"k": 1.0}, "b": [1.0, 2.0]}
ARRAY = np.ones(2)
TENSOR = torch.ones(2, dtype=torch.float64)


def one(*values):
    return torch.tensor(values, dtype=torch.float64)


def decayed(f):
    """-log of the state at time 1: the rate of decay in the solution."""
    return -math.log(float(nlme.solve(f, one(1.0), TIMES, {}, solver="torchdiffeq")[0, 1, 0]))


def traced(f):
    """The rate of decay in the expressions that would be compiled."""
    system = compiled.system_for(f, 1, {}, one(1.0).unsqueeze(0), key_of(f))
    return -float(evaluate(system.traced.slopes, {"t": 0.0, "x0": 1.0})[0])


class Rate:
    k = 1.0

    def __init__(self, k=1.0):
        self.own = k

    @property
    def squared(self):
        return self.own**2

    def rate(self):
        return self.own * self.factor()

    @staticmethod
    def factor():
        return Rate.k

    @classmethod
    def of_class(cls):
        return cls.k

    def slope(self, t, x, p):
        return -self.rate() * x

    def unrelated(self):
        return open("no such file")  # never called; not to be read in full

    def through_lambda(self, t, x, p):
        return (lambda: -self.own * x)()


class Derived(Rate):
    def slope(self, t, x, p):
        return super().slope(t, x, p)


class Slotted:
    __slots__ = ("k",)


class Callable:
    def __init__(self, k):
        self.k = k

    def __call__(self, t, x, p):
        return -self.k * x


class Lazy:
    """An attribute that is computed by ``__getattr__``."""

    def __init__(self):
        self.store = {"k": 1.0}

    def __getattr__(self, name):
        if name == "store":
            raise AttributeError(name)
        return self.store[name]


class Flow(NamedTuple):
    k: float


@dataclasses.dataclass
class Record:
    k: float = 1.0


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


class Case(NamedTuple):
    """A right-hand side, how to double its rate, and whether it is remembered."""

    f: object
    change: object
    known: bool = True


def _set(name, value):
    return lambda: globals().__setitem__(name, value)


def module_attribute():
    return Case(lambda t, x, p: -config.k * x, lambda: setattr(config, "k", 2.0))


def chain():
    deep = config.inner.deep
    return Case(lambda t, x, p: -config.inner.deep.k * x, lambda: setattr(deep, "k", 2.0))


def chain_whose_middle_is_replaced():
    other = types.SimpleNamespace(k=2.0)
    return Case(
        lambda t, x, p: -config.inner.deep.k * x, lambda: setattr(config.inner, "deep", other)
    )


def module_by_getattr():
    return Case(lambda t, x, p: -getattr(config, "k") * x, lambda: setattr(config, "k", 2.0), False)  # noqa: B009


def module_under_a_local_name():
    def f(t, x, p):
        c = config
        return -c.k * x

    return Case(f, lambda: setattr(config, "k", 2.0), False)


def module_in_a_closure():
    module = config
    return Case(lambda t, x, p: -module.k * x, lambda: setattr(config, "k", 2.0))


def module_function():
    config.rate = lambda: K
    return Case(lambda t, x, p: -config.rate() * x, _set("K", 2.0))


def class_attribute():
    return Case(lambda t, x, p: -Rate.k * x, lambda: setattr(Rate, "k", 2.0))


def class_under_a_local_name():
    def f(t, x, p):
        c = Record
        return -c.k * x

    return Case(f, lambda: setattr(Record, "k", 2.0))


def instance_attribute():
    r = Rate()
    return Case(lambda t, x, p: -r.own * x, lambda: setattr(r, "own", 2.0))


def instance_under_a_local_name():
    r = Record()

    def f(t, x, p):
        c = r
        return -c.k * x

    return Case(f, lambda: setattr(r, "k", 2.0))


def instance_attribute_of_its_class():
    r = Rate()
    return Case(lambda t, x, p: -r.k * x, lambda: setattr(Rate, "k", 2.0))


def property_of_an_instance():
    r = Rate()
    return Case(lambda t, x, p: -r.squared * x, lambda: setattr(r, "own", math.sqrt(2.0)))


def computed_attribute():
    r = Lazy()
    return Case(lambda t, x, p: -r.k * x, lambda: r.store.update(k=2.0))


def slot():
    r = Slotted()
    r.k = 1.0

    def f(t, x, p):
        c = r
        return -c.k * x

    return Case(f, lambda: setattr(r, "k", 2.0))


def method_called():
    r = Rate()
    return Case(lambda t, x, p: -r.rate() * x, lambda: setattr(r, "own", 2.0))


def method_called_whose_class_changes():
    r = Rate()
    return Case(lambda t, x, p: -r.rate() * x, lambda: setattr(Rate, "k", 2.0))


def method_replaced():
    r = Rate()
    return Case(lambda t, x, p: -r.rate() * x, lambda: setattr(r, "rate", lambda: 2.0))


def class_method():
    return Case(lambda t, x, p: -Rate.of_class() * x, lambda: setattr(Rate, "k", 2.0))


def bound_method():
    r = Rate()
    return Case(r.slope, lambda: setattr(r, "own", 2.0))


def bound_method_whose_class_changes():
    return Case(Rate().slope, lambda: setattr(Rate, "k", 2.0))


def bound_method_with_self_in_a_lambda():
    r = Rate()
    return Case(r.through_lambda, lambda: setattr(r, "own", 2.0), False)  # `unrelated` opens a file


def inherited_method():
    r = Derived()
    return Case(r.slope, lambda: setattr(r, "own", 2.0), False)  # `unrelated` opens a file


def inherited_method_of_a_simple_class():
    class Base:
        def slope(self, t, x, p):
            return -self.k * x

    class Derived(Base):
        def slope(self, t, x, p):
            return super().slope(t, x, p)

    r = Derived()
    r.k = 1.0
    return Case(r.slope, lambda: setattr(r, "k", 2.0))


def inherited_method_replaced():
    class Base:
        def slope(self, t, x, p):
            return -x

    class Derived(Base):
        def slope(self, t, x, p):
            return super().slope(t, x, p)

    return Case(Derived().slope, lambda: setattr(Base, "slope", lambda self, t, x, p: -2 * x))


def local_variables():
    r = Rate()

    class Own:
        k = 1.0

        def slope(self, t, x, p):
            return -locals()["self"].k * x

    own = Own()
    return Case(own.slope, lambda: setattr(own, "k", r.k + 1))


def closure_by_local_variables():
    k = 1.0

    def f(t, x, p):
        if False:
            return k
        return -locals()["k"] * x

    def change():
        nonlocal k
        k = 2.0

    return Case(f, change)


def callable_instance():
    r = Callable(1.0)
    return Case(r, lambda: setattr(r, "k", 2.0))


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
        from tests.nlme.ode.compiled import test_function_keys

        return -test_function_keys.K * x

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
    return Case(lambda t, x, p: -(1.5 + math.copysign(0.5, K)) * x, _set("K", 0.0))


def kind_of_number():
    return Case(lambda t, x, p: -(2.0 if isinstance(K, int) else 1.0) * x, _set("K", 1))


CASES = (
    module_attribute,
    chain,
    chain_whose_middle_is_replaced,
    module_by_getattr,
    module_under_a_local_name,
    module_in_a_closure,
    module_function,
    class_attribute,
    class_under_a_local_name,
    instance_attribute,
    instance_under_a_local_name,
    instance_attribute_of_its_class,
    property_of_an_instance,
    computed_attribute,
    slot,
    method_called,
    method_called_whose_class_changes,
    method_replaced,
    class_method,
    bound_method,
    bound_method_whose_class_changes,
    bound_method_with_self_in_a_lambda,
    inherited_method,
    inherited_method_of_a_simple_class,
    inherited_method_replaced,
    local_variables,
    closure_by_local_variables,
    callable_instance,
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


HELPER = helper


def restore():
    """Set the state of this module, which every case changes, to its first values."""
    space = globals()
    space.update(K=1.0, NUMBERS={"a": {"k": 1.0}, "b": [1.0, 2.0]}, helper=HELPER)
    space.pop("abs", None)
    ARRAY.fill(1.0)
    TENSOR.fill_(1.0)
    Rate.k = Record.k = config.k = 1.0
    config.inner.deep = types.SimpleNamespace(k=1.0)
    with_default.__defaults__ = (None,)


@pytest.fixture(autouse=True)
def _as_before():
    yield
    restore()


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_solutions_and_systems_follow_what_a_right_hand_side_reads(make):
    if make is sign_of_zero:
        globals()["K"] = -0.0
    f, change, known = make()
    with caching(SolutionCache()) as memory:
        assert traced(f) == pytest.approx(1.0)
        assert decayed(f) == pytest.approx(1.0, rel=1e-6)
        assert (key_of(f) is not None) is known
        assert decayed(f) == pytest.approx(1.0, rel=1e-6)
        assert (memory.num_hits > 0) is known
        change()
        assert traced(f) == pytest.approx(2.0)
        assert decayed(f) == pytest.approx(2.0, rel=1e-6)


def test_functions_of_the_libraries_have_keys():
    def oral(t, x, p):
        depot, central = x.unbind(-1)
        rate = p["ka"] * torch.nn.functional.softplus(depot) * math.pi * np.float64(2.0)
        return torch.stack([-rate, rate - torch.exp(central).clamp(min=0.0)], -1)

    assert key_of(oral) == key_of(oral)
    assert key_of(oral) is not None
    assert key_of(lambda t, x, p: nlme.power_effect(x, 70.0, 0.75)) is not None


def test_random_functions_have_no_key():
    assert key_of(lambda t, x, p: x * torch.rand(1)) is None
    assert key_of(lambda t, x, p: x * torch.empty(1).normal_()) is None
    assert key_of(lambda t, x, p: x * float(np.random.rand())) is None  # noqa: NPY002


def test_functions_that_write_have_no_key():
    count = 0

    def by_global(t, x, p):
        global K
        K = 1.0
        return -x

    def by_cell(t, x, p):
        nonlocal count
        count += 1
        return -x

    assert key_of(by_global) is None
    assert key_of(by_cell) is None


def test_a_function_that_reads_a_tensor_with_gradient_has_no_key():
    rate = torch.tensor(1.0, requires_grad=True)
    assert key_of(lambda t, x, p: -rate * x) is None
    with torch.no_grad():
        assert key_of(lambda t, x, p: -rate * x) is not None


def test_a_function_that_reads_large_state_has_no_key():
    large = torch.zeros(100_000)
    long_list = list(range(100_000))
    ring = []
    ring.append(ring)
    deep = []
    for _ in range(2_000):
        deep = [deep]
    assert key_of(lambda t, x, p: x * large.sum()) is None
    assert key_of(lambda t, x, p: x * long_list[0]) is None
    assert key_of(lambda t, x, p: x * len(deep)) is None
    assert key_of(lambda t, x, p: x * len(ring)) is not None


def test_keys_of_equal_functions_are_equal():
    def made(k):
        return lambda t, x, p: -k * x

    assert key_of(made(1.0)) == key_of(made(1.0))
    assert key_of(made(1.0)) != key_of(made(2.0))
    assert key_of(made(torch.ones(2))) == key_of(made(torch.ones(2)))
    assert key_of(made(torch.ones(2))) != key_of(made(torch.ones(2, 1)))
    assert key_of(made(float("nan"))) == key_of(made(float("nan")))
