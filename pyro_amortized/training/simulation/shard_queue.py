r"""The bank of simulations: shards that are simulated when they are needed or ahead of it.

Shards are simulated by this process, by worker processes or on a cluster, and kept in memory or on
disk. A thread collects the shards of the workers while the network trains on those that are
available. If a worker process is lost, its shards are simulated again, with the same result,
because a shard depends on the seed and its number alone.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...runtime.isolation import torch_threads
from ...runtime.workers import Workers, is_lost_worker
from .shard_simulation import Simulator
from .shard_store import SimulationStore
from .training_sets import TrainingSet, rounded


@dataclass(frozen=True)
class QueueSettings:
    r"""How simulation ahead is organised.

    Args:
        max_losses: Number of lost worker processes after which the error is raised: a model that
            crashes its process would otherwise be started without end.
        shards_per_worker: Shards given to the workers at once, per worker: two, so that none waits.
        num_ahead: Shards that are simulated ahead of the training in a bank without fixed size.
        poll_seconds: Longest time between two looks at the state of the bank.
        other_seconds: Time between two looks for a shard that another process simulates.
        close_seconds: Longest time to wait for the thread when the bank is closed.
    """

    max_losses: int = 5
    shards_per_worker: int = 2
    num_ahead: int = 8
    poll_seconds: float = 1.0
    other_seconds: float = 0.1
    close_seconds: float = 2.0


SETTINGS = QueueSettings()


def _simulate(simulator: Simulator, shard: int, size: int) -> TrainingSet:
    with torch_threads(1):
        return rounded(simulator(shard, size))


@dataclass(eq=False)
class SimulationBank:
    r"""The simulations of a training, shard by shard: simulated where they are needed or ahead of
    that, and kept.

    Args:
        simulator: Makes a shard.
        shard_size: Simulations per shard; the last may be smaller.
        num_shards: Number of shards, or None for no fixed number.
        last_size: Size of the last shard.
        store: Where shards are kept, or None for memory.
        workers: Processes that simulate ahead; without workers a shard is simulated when it is
            needed.
        capacity: Largest number of shards that may be kept.
        place: Rank of this process, and number of processes that write to one store together.
            Process r of R simulates the shards k with k mod R = r.
        num_failed: Number of simulations that were not finite, by shard.
        simulation_seconds: Time that this process spent with simulations.
    """

    simulator: Simulator
    shard_size: int
    num_shards: int | None
    last_size: int
    store: SimulationStore | None = None
    workers: Workers = field(default_factory=Workers)
    capacity: int = 10**6
    place: tuple[int, int] = (0, 1)
    num_failed: dict[int, int] = field(default_factory=dict)
    simulation_seconds: float = 0.0
    _memory: dict[int, TrainingSet] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _error: list[BaseException] = field(default_factory=list)
    _closing: bool = False
    _thread: threading.Thread | None = None
    _last_needed: int = 0

    def size(self, shard: int) -> int:
        """Number of simulations of a shard."""
        last = self.num_shards is not None and shard == self.num_shards - 1
        return self.last_size if last else self.shard_size

    @property
    def total(self) -> int:
        """Simulations of all shards of a bank of fixed size."""
        assert self.num_shards is not None
        return (self.num_shards - 1) * self.shard_size + self.last_size

    def is_own(self, shard: int) -> bool:
        """Whether this process simulates the shard; without a common store each simulates all."""
        return self.store is None or shard % self.place[1] == self.place[0]

    def get(self, shard: int) -> TrainingSet:
        """A shard; if it is not available, it is simulated or waited for."""
        with self._changed:
            self._last_needed = max(self._last_needed, shard)
            self._changed.notify_all()
            waits = self._thread is not None and self.is_own(shard)
            while waits and not self._is_available(shard) and not self._error:
                self._changed.wait(SETTINGS.poll_seconds)
            if self._error:
                raise self._error[0]
        while not self._is_available(shard) and not self.is_own(shard):
            time.sleep(SETTINGS.other_seconds)
        if not self._is_available(shard):
            begin = time.perf_counter()
            self._put(shard, _simulate(self.simulator, shard, self.size(shard)))
            self.simulation_seconds += time.perf_counter() - begin
        if shard in self._memory:
            return self._memory[shard]
        assert self.store is not None
        simulations = self.store.read(shard)
        self.num_failed[shard] = simulations.num_failed
        return simulations

    def is_ready(self, shard: int) -> bool:
        """Whether a shard is available without waiting."""
        with self._changed:
            if self._error:
                raise self._error[0]
            return self._is_available(shard)

    def _is_available(self, shard: int) -> bool:
        return shard in self._memory or (
            self.store is not None and (shard in self._done or shard in self.store)
        )

    def _put(self, shard: int, simulations: TrainingSet | None) -> None:
        """Keep a shard; None stands for one that a worker wrote to the store."""
        if simulations is not None:
            self.num_failed[shard] = simulations.num_failed
            if self.store is None:
                self._memory[shard] = simulations
            else:
                self.store.write(shard, simulations)
        with self._changed:
            self._done.add(shard)
            self._changed.notify_all()

    # Simulation ahead.

    def start(self) -> None:
        """Begin to simulate ahead in worker processes, if there are any."""
        if self.workers.num_workers and self._thread is None:
            self._thread = threading.Thread(target=self._produce, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop simulating ahead; shards that are being simulated are finished and dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            # The thread is a daemon, so a shard that takes longer does not hold up this process.
            self._thread.join(timeout=SETTINGS.close_seconds)
            self._thread = None

    def _produce(self) -> None:
        """The thread: collect shards from the workers, round by round."""
        num_losses = 0
        try:
            for shards in self._rounds():
                missing = [k for k in shards if not self._is_available(k) and self.is_own(k)]
                while missing and not self._closing:
                    try:
                        self._simulate_in_workers(missing)
                    except Exception as error:
                        if not is_lost_worker(error) or num_losses >= SETTINGS.max_losses:
                            raise
                        num_losses += 1
                    missing = [k for k in missing if not self._is_available(k)]
                if self._closing:
                    return
        except BaseException as error:  # Raised where a shard is waited for.
            with self._changed:
                self._error.append(error)
                self._changed.notify_all()

    def _rounds(self) -> Iterator[Sequence[int]]:
        """Numbers of the shards to simulate, some per worker at a time, not too far ahead."""
        width = SETTINGS.shards_per_worker * self.workers.num_workers
        start = 0
        end = self.capacity if self.num_shards is None else self.num_shards
        while start < end:
            yield range(start, min(start + width, end))
            start += width
            with self._changed:
                while (
                    self.num_shards is None
                    and start > self._last_needed + SETTINGS.num_ahead
                    and not self._closing
                ):
                    self._changed.wait(SETTINGS.poll_seconds)

    def _simulate_in_workers(self, shards: Sequence[int]) -> None:
        tasks = [(self.simulator, k, self.size(k), self.store) for k in shards]
        for shard, simulations in self.workers.results(_simulate_task, tasks):
            self._put(shard, simulations)
            if self._closing:
                return


def _simulate_task(
    simulator: Simulator, shard: int, size: int, store: SimulationStore | None
) -> tuple[int, TrainingSet | None]:
    """The task of a worker: write a shard to the store unless it is there, or return it."""
    if store is None:
        return shard, _simulate(simulator, shard, size)
    if shard not in store:
        store.write(shard, _simulate(simulator, shard, size))
    return shard, None
