"""Tasks in other processes: the results are those of this process, in the order of the tasks."""

import os

import joblib
import pytest
import torch

from pyro_amortized.errors import AmortizedError
from pyro_amortized.runtime import workers
from pyro_amortized.runtime.workers import (
    Workers,
    is_lost_worker,
    num_processors,
    run_each,
)


def square(x):
    return x**2


def place(x):
    return x, os.getpid(), torch.get_num_threads()


def fail(x):
    raise ArithmeticError(f"task {x}")


def test_without_a_configuration_tasks_run_here():
    assert Workers.active() is None
    assert run_each(square, [(3,), (2,)]) == [9, 4]
    assert {pid for _, pid, _ in run_each(place, [(1,), (2,)])} == {os.getpid()}
    assert run_each(square, []) == []


@pytest.mark.slow
def test_results_come_in_the_order_of_the_tasks():
    with joblib.parallel_config(backend="loky", n_jobs=2):
        results = run_each(place, [(j,) for j in range(6)])
    assert [x for x, _, _ in results] == list(range(6))
    assert os.getpid() not in {pid for _, pid, _ in results}
    assert {threads for _, _, threads in results} == {1}


@pytest.mark.slow
def test_an_error_in_a_task_is_raised_here():
    with (
        joblib.parallel_config(backend="loky", n_jobs=2),
        pytest.raises(ArithmeticError, match="task"),
    ):
        run_each(fail, [(1,), (2,)])


@pytest.mark.slow
def test_joblib_runs_in_the_same_process_before_and_after():
    """The pool of the workers is joblib's own, which it can use again.

    A process that runs nothing but a builtin function imports nothing.
    """
    assert joblib.Parallel(2)([joblib.delayed(abs)(x) for x in (-2, 3)]) == [2, 3]
    assert sorted(Workers(2).results(abs, [(-3,), (2,)])) == [2, 3]
    assert list(Workers(1).results(abs, [(-4,)])) == [4]
    assert joblib.Parallel(2)([joblib.delayed(abs)(x) for x in (-2, 3)]) == [2, 3]


def test_threads_are_refused():
    with (
        joblib.parallel_config(backend="threading", n_jobs=2),
        pytest.raises(AmortizedError, match="threads"),
    ):
        run_each(square, [(1,), (2,)])


def test_lost_workers_are_told_from_other_errors():
    class TerminatedWorkerError(Exception):
        pass

    assert is_lost_worker(TerminatedWorkerError())
    wrapped = RuntimeError()
    wrapped.__cause__ = TerminatedWorkerError()
    assert is_lost_worker(wrapped)
    assert not is_lost_worker(RuntimeError())


def test_at_least_one_processor_and_not_more_than_there_are():
    assert 1 <= num_processors() <= (os.cpu_count() or 1)


def _squares_in_here():
    return run_each(pow, [(2, 2), (3, 2)])


def test_in_a_process_of_the_caller_everything_runs_in_this_process():
    """joblib names threads for what is nested in a process: a fit in a pool ended in an error."""
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(_squares_in_here)() for _ in range(2))
    assert results == [[4, 9], [4, 9]]


def test_tasks_are_counted_as_steps_unless_they_are_parts_of_one(monkeypatch):
    counted = []
    monkeypatch.setattr(workers, "count_step", lambda: counted.append(1))
    assert run_each(abs, [(-1,), (2,)]) == [1, 2]
    assert len(counted) == 2
    assert run_each(abs, [(-1,), (2,)], counted=False) == [1, 2]
    assert len(counted) == 2
