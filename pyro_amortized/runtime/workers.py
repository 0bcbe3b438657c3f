r"""Tasks in other processes, on any joblib backend.

By default the processes run on this machine. Under ``joblib.parallel_config`` the tasks go to what
the configuration names: a number of processes, a Dask cluster or a Ray cluster. Every task carries
its own seed, so the results do not depend on where a task runs.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from joblib import Parallel, cpu_count, delayed
from joblib.executor import get_memmapping_executor
from joblib.externals.loky import as_completed
from joblib.parallel import LokyBackend, ThreadingBackend, get_active_backend

from ..errors import AmortizedError
from .isolation import torch_threads
from .progress import count_step

IDLE_SECONDS = 120  # an idle process is kept this long, since starting one costs seconds


@dataclass(frozen=True)
class Workers:
    r"""Processes that run tasks: processes of this machine, or those of a cluster.

    Args:
        num_workers: Number of processes.
        backend: The joblib backend, or None for processes of this machine.
    """

    num_workers: int = 0
    backend: Any = None

    def results(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[Any]:
        """Results of ``function(*task)``, in the order in which they are finished."""
        if self.backend is not None:
            pool = Parallel(
                n_jobs=self.num_workers, return_as="generator_unordered", backend=self.backend
            )
            yield from pool(delayed(function)(*task) for task in tasks)
            return
        # joblib's pool is used directly, because `Parallel` runs a single job in this process,
        # where a model would change global state under the training. Loky's own function would
        # leave a pool behind that later calls of `Parallel` by the user cannot use.
        executor = get_memmapping_executor(self.num_workers, timeout=IDLE_SECONDS, max_nbytes=None)
        futures = [executor.submit(function, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    @classmethod
    def active(cls) -> "Workers | None":
        r"""The workers that the caller chose by ``joblib.parallel_config``, or None: none was
        chosen, or this is a process of a pool of the caller.

        Raises:
            AmortizedError: The caller chose threads.
        """
        backend, num_jobs = get_active_backend()
        if isinstance(backend, ThreadingBackend):
            # In a process of the caller's own pool, joblib itself names threads for what is nested.
            is_nested = (backend.nesting_level or 0) > 0
            if is_nested and threading.current_thread() is threading.main_thread():
                return None
            raise AmortizedError(
                "joblib is set to run in threads.",
                "processes: a Pyro model cannot be run safely in several threads.",
                'use `joblib.parallel_config(backend="loky")`, "dask" or "ray".',
            )
        local = isinstance(backend, LokyBackend)
        if local and num_jobs in (None, 1):
            return None
        num_workers = backend.effective_n_jobs(-1 if num_jobs in (1, None) else num_jobs)
        return cls(max(1, num_workers), None if local else backend)


def num_processors() -> int:
    """Number of processors that this process may use.

    It counts the processors that the process is bound to (by ``taskset`` or Slurm), and respects
    the quota of a container and the environment variable ``LOKY_MAX_CPU_COUNT``.
    """
    return int(cpu_count())


def is_lost_worker(error: BaseException) -> bool:
    """Whether an error means that a worker process has died."""
    names = {type(e).__name__ for e in (error, error.__cause__) if e is not None}
    return bool(names & {"TerminatedWorkerError", "BrokenProcessPool", "KilledWorker"})


def run_each(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], *, counted: bool = True
) -> list[Any]:
    """``[function(*task) for task in tasks]``, in workers if joblib is configured that way; the
    tasks that are done are counted as steps of a progress bar, or not.
    """
    workers = Workers.active()
    if workers is None or len(tasks) < 2:
        results = []
        for task in tasks:
            results.append(function(*task))
            if counted:
                count_step()
        return results
    numbered = [(function, j, task) for j, task in enumerate(tasks)]
    result_of = dict(workers.results(_numbered, numbered))
    return [result_of[j] for j in range(len(tasks))]


def _numbered(function: Callable[..., Any], number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    with torch_threads(1):
        return number, function(*task)
