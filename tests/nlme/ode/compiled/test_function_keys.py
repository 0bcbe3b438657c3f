"""Solutions and compiled systems change with whatever a right-hand side reads.

Each case is one way in which a Python function can depend on state. The state changes between two
calls of the solver that share a cache.
"""

import math

import numpy as np
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.nlme.ode.compiled import systems as compiled
from pyro_amortized.nlme.ode.compiled.expressions import evaluate
from pyro_amortized.nlme.ode.compiled.function_keys import key_of
from pyro_amortized.runtime.solver_context import SolutionCache, caching

from . import object_cases, variable_cases

TIMES = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
COUNT = 1


def one(*values):
    return torch.tensor(values, dtype=torch.float64)


def decayed(f):
    """-log of the state at time 1: the rate of decay in the solution."""
    return -math.log(float(nlme.solve(f, one(1.0), TIMES, {}, solver="torchdiffeq")[0, 1, 0]))


def traced(f):
    """The rate of decay in the expressions that would be compiled."""
    system = compiled.system_for(f, 1, {}, one(1.0).unsqueeze(0), key_of(f))
    return -float(evaluate(system.traced.slopes, {"t": 0.0, "x0": 1.0})[0])


@pytest.fixture(autouse=True)
def _as_before():
    yield
    object_cases.restore()
    variable_cases.restore()


@pytest.mark.parametrize(
    "make", object_cases.CASES + variable_cases.CASES, ids=lambda make: make.__name__
)
def test_solutions_and_systems_follow_what_a_right_hand_side_reads(make):
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
        global COUNT
        COUNT = 1
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
