"""Results that are computed once, and who reports the failures of a solver."""

import pytest
import torch

from pyro_amortized.runtime.solver_context import (
    SolutionCache,
    active_failure_count,
    cached_result,
    caching,
    caller_reports_failures,
    failures_in_one_line,
    failures_reported_by_caller,
    labelled_rows,
)


class Computation:
    """Counts how often it is computed."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, key="square"):
        def compute():
            self.count += 1
            return x**2

        return cached_result(key, [x], compute, lambda result: result.numel() * 8)


def test_outside_the_context_nothing_is_cached():
    compute, x = Computation(), torch.ones(3)
    assert torch.equal(compute(x), compute(x))
    assert compute.count == 2


def test_equal_inputs_are_computed_once():
    compute, x = Computation(), torch.arange(3.0)
    with caching(SolutionCache()) as cache:
        first = compute(x)
        assert compute(x.clone()) is first
    assert (compute.count, cache.num_hits) == (1, 1)


@pytest.mark.parametrize(
    "other", [torch.arange(3.0) + 1e-6, torch.arange(3.0).double(), torch.arange(3.0)[None]]
)
def test_other_inputs_are_computed(other):
    compute = Computation()
    with caching(SolutionCache()):
        compute(torch.arange(3.0))
        assert torch.equal(compute(other), other**2)
    assert compute.count == 2


def test_another_key_is_another_computation_and_none_is_never_cached():
    compute, x = Computation(), torch.ones(3)
    with caching(SolutionCache()):
        compute(x, "one")
        compute(x, "two")
        assert compute.count == 2
        compute(x, None)
        compute(x, None)
        assert compute.count == 4


def test_inputs_that_are_changed_in_place_are_other_inputs():
    compute, x = Computation(), torch.ones(3)
    with caching(SolutionCache()):
        compute(x)
        x += 1
        assert torch.equal(compute(x), torch.full((3,), 4.0))


def test_what_was_used_least_recently_is_removed():
    compute = Computation()
    a, b, c = (torch.full((100,), float(k)) for k in range(3))
    with caching(SolutionCache(max_bytes=2 * (800 + 400))):
        for x in (a, b, a, c):  # c does not fit beside both: b goes
            compute(x)
        compute(a)
        assert compute.count == 3
        compute(b)
        assert compute.count == 4


def test_contexts_end_after_an_error():
    def fail():
        with caching(SolutionCache()), failures_reported_by_caller():
            assert caller_reports_failures()
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert not caller_reports_failures()
    compute, x = Computation(), torch.ones(1)
    compute(x)
    compute(x)
    assert compute.count == 2


def test_failures_in_one_line(caplog):
    few = torch.zeros(2, 1000, dtype=torch.bool)
    few[0, 3] = True
    with caplog.at_level("INFO"), failures_in_one_line("fit"):
        active_failure_count().add(few)
        with failures_in_one_line("draws"), labelled_rows(("a", "b")):
            active_failure_count().add(torch.tensor([False, True]))
        assert not caplog.records
    assert active_failure_count() is None
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage().startswith("fit: 2 of 2002 trajectories were not solved")
    assert record.getMessage().endswith("individuals 3 (1), b (1).")
    caplog.clear()
    with failures_in_one_line("fit"):
        active_failure_count().add(few[:, :4])
    assert caplog.records[0].levelname == "WARNING"
    caplog.clear()
    with failures_in_one_line("fit"):
        active_failure_count().add(torch.zeros(5, dtype=torch.bool))
    assert not caplog.records
