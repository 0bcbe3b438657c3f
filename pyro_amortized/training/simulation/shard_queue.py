r"""The bank of simulations: shards made here, by worker processes or on a cluster, and kept in
memory or on disk.

A background thread collects the shards while the network trains on the ones that are there. A lost
worker costs the shards it was on, which are made again: a shard depends on its number alone.
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

MAX_LOSSES = 5
MAX_MEMORY = 2 * 2**30


def _simulate(simulator: Simulator, shard: int, size: int) -> TrainingSet:
    with torch_threads(1):
        return rounded(simulator(shard, size))


@dataclass(eq=False)
class Bank:
    r"""Shards of simulations, by number.

    Args:
        simulator: Makes a shard.
        shard_size: Simulations per shard; the last may be smaller.
        num_shards: Number of shards, or None for as many as are asked for.
        last_size: Size of the last shard.
        store: Where shards are kept, or None for memory.
        workers: Who simulates ahead; without workers a shard is simulated when asked for.
        capacity: Largest number of shards that may be kept.
        place: Number of this process and of all that fill one store together; each makes the shards
            whose number leaves its own when divided.
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
    _ahead: int = 8
    _asked: int = 0

    def size(self, shard: int) -> int:
        """Number of simulations of a shard."""
        last = self.num_shards is not None and shard == self.num_shards - 1
        return self.last_size if last else self.shard_size

    @property
    def total(self) -> int:
        """Simulations of all shards of a bank of fixed size."""
        assert self.num_shards is not None
        return (self.num_shards - 1) * self.shard_size + self.last_size

    def is_mine(self, shard: int) -> bool:
        """Whether this process makes the shard; without a common store each makes all."""
        return self.store is None or shard % self.place[1] == self.place[0]

    def get(self, shard: int) -> TrainingSet:
        """A shard; simulated or waited for if it is not there."""
        with self._changed:
            self._asked = max(self._asked, shard)
            self._changed.notify_all()
            waits = self._thread is not None and self.is_mine(shard)
            while waits and not self._there(shard) and not self._error:
                self._changed.wait(1.0)
            if self._error:
                raise self._error[0]
        while not self._there(shard) and not self.is_mine(shard):
            time.sleep(0.1)  # another process makes it
        if not self._there(shard):
            begin = time.perf_counter()
            self._put(shard, _simulate(self.simulator, shard, self.size(shard)))
            self.simulation_seconds += time.perf_counter() - begin
        if shard in self._memory:
            return self._memory[shard]
        assert self.store is not None
        found = self.store.read(shard)
        self.num_failed[shard] = found.num_failed
        return found

    def ready(self, shard: int) -> bool:
        """Whether a shard can be had without waiting."""
        with self._changed:
            if self._error:
                raise self._error[0]
            return self._there(shard)

    def _there(self, shard: int) -> bool:
        return shard in self._memory or (
            self.store is not None and (shard in self._done or shard in self.store)
        )

    def _put(self, shard: int, found: TrainingSet | None) -> None:
        if found is not None:
            self.num_failed[shard] = found.num_failed
            if self.store is None:
                self._memory[shard] = found
            else:
                self.store.write(shard, found)
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
        """Stop simulating ahead; what is under way is finished and dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=2.0)  # a daemon: it may finish its shard alone
            self._thread = None

    def _produce(self) -> None:
        losses = 0
        try:
            for shards in self._rounds():
                wanted = [k for k in shards if not self._there(k) and self.is_mine(k)]
                while wanted and not self._closing:
                    try:
                        self._simulate_in_workers(wanted)
                    except Exception as error:
                        if not is_lost_worker(error) or losses >= MAX_LOSSES:
                            raise
                        losses += 1
                    wanted = [k for k in wanted if not self._there(k)]
                if self._closing:
                    return
        except BaseException as error:  # told to whoever waits for a shard
            with self._changed:
                self._error.append(error)
                self._changed.notify_all()

    def _rounds(self) -> Iterator[Sequence[int]]:
        """Numbers of the shards to make, a few per worker at a time, not too far ahead."""
        width = 2 * self.workers.num_workers
        start = 0
        end = self.capacity if self.num_shards is None else self.num_shards
        while start < end:
            yield range(start, min(start + width, end))
            start += width
            with self._changed:
                while (
                    self.num_shards is None
                    and start > self._asked + self._ahead
                    and not self._closing
                ):
                    self._changed.wait(1.0)

    def _simulate_in_workers(self, shards: Sequence[int]) -> None:
        tasks = [(self.simulator, k, self.size(k), self.store) for k in shards]
        found = self.workers.results(_work, tasks)
        for shard, simulations in found:
            self._put(shard, simulations)
            if self._closing:
                return


def _work(
    simulator: Simulator, shard: int, size: int, store: SimulationStore | None
) -> tuple[int, TrainingSet | None]:
    """What a worker does: a shard into the store, unless it is there, or back to the caller."""
    if store is None:
        return shard, _simulate(simulator, shard, size)
    if shard not in store:
        store.write(shard, _simulate(simulator, shard, size))
    return shard, None
