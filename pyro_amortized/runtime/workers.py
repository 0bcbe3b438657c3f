r"""Work in other processes, on any joblib backend.

Without a word from the caller, on processes of this machine; under ``joblib.parallel_config``, on
what it names: a number of processes, a Dask or a Ray cluster. What is computed never depends on
who computes it: every task carries its own seed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import as_completed, get_reusable_executor
from joblib.parallel import LokyBackend, ThreadingBackend, get_active_backend

from ..errors import AmortizedError
from .isolation import torch_threads


@dataclass(frozen=True)
class Workers:
    r"""Processes that work for this one: joblib's own on this machine, or those of a cluster.

    Args:
        num_workers: How many.
        backend: The joblib backend, or None for processes of this machine.
    """

    num_workers: int = 0
    backend: Any = None

    def results(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[Any]:
        """Results of ``function(*task)`` as they come, in any order."""
        if self.backend is not None:
            pool = Parallel(
                n_jobs=self.num_workers, return_as="generator_unordered", backend=self.backend
            )
            yield from pool(delayed(function)(*task) for task in tasks)
            return
        # joblib's own pool of processes: `Parallel` would run a single job in this process.
        executor = get_reusable_executor(max_workers=self.num_workers, timeout=120)
        futures = [executor.submit(function, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    @classmethod
    def active(cls) -> "Workers | None":
        r"""The workers that the caller chose by ``joblib.parallel_config``, if he did.

        Raises:
            AmortizedError: He chose threads.
        """
        backend, num_jobs = get_active_backend()
        if isinstance(backend, ThreadingBackend):
            raise AmortizedError(
                "joblib is set to run in threads.",
                "processes: a Pyro program is not safe to run in several threads.",
                'use `joblib.parallel_config(backend="loky")`, "dask" or "ray".',
            )
        local = isinstance(backend, LokyBackend)
        if local and num_jobs in (None, 1):
            return None
        found = backend.effective_n_jobs(-1 if num_jobs in (1, None) else num_jobs)
        return cls(max(1, found), None if local else backend)


def num_processors() -> int:
    """Processors that this process may use: those it is bound to (``taskset``, Slurm), fewer where
    a container has a quota or ``LOKY_MAX_CPU_COUNT`` says so.
    """
    return int(cpu_count())


def is_lost_worker(error: BaseException) -> bool:
    """Whether an error says that a worker process died."""
    names = {type(e).__name__ for e in (error, error.__cause__) if e is not None}
    return bool(names & {"TerminatedWorkerError", "BrokenProcessPool", "KilledWorker"})


def run_each(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``[function(*task) for task in tasks]``, in workers if the caller configured joblib so."""
    workers = Workers.active()
    if workers is None or len(tasks) < 2:
        return [function(*task) for task in tasks]
    numbered = [(function, j, task) for j, task in enumerate(tasks)]
    found = dict(workers.results(_numbered, numbered))
    return [found[j] for j in range(len(tasks))]


def _numbered(function: Callable[..., Any], number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    with torch_threads(1):
        return number, function(*task)
