r"""What is to be simulated, by whom, and where it is kept."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..guide.amortized_posterior import AmortizedPosterior
from ..runtime.atomic_files import fingerprint
from ..runtime.progress import progress_bar
from ..runtime.workers import Workers, num_processors
from .objective import mean_over_ranks, num_ranks, rank
from .options import Networks, TrainingOptions
from .run_folder import PROBE, claim, settings
from .simulation.failure_checks import check_failures
from .simulation.shard_queue import MAX_MEMORY, Bank
from .simulation.shard_simulation import Simulator
from .simulation.shard_store import SimulationStore
from .simulation.training_sets import TrainingSet, num_bytes, rounded

DEFAULT_SIMULATIONS = 300_000
SHARD_SIZE = 8192
MIN_VALIDATION = 200  # or a quarter of the simulations
MAX_VALIDATION = 8192
NUM_TIMED = 256
SLOW = 8.0  # seconds of simulation from which worker processes pay for their start
HEAD_START = 0.1  # share of a time budget that is simulated before training begins
ENOUGH_AHEAD = 100_000


@dataclass(frozen=True, eq=False)
class Plan:
    r"""One training, as it was asked for.

    Args:
        simulator: Makes the simulations.
        options: How to train.
        networks: Sizes of the networks.
        num_simulations: As asked for.
        begin: When it began (``time.monotonic``).
        limit: Time budget in seconds.
        folder: Where simulations and checkpoints are kept.
        progress: Show progress bars.
        warm_start: Networks to go on from.
    """

    simulator: Simulator
    options: TrainingOptions
    networks: Networks
    num_simulations: int | None
    begin: float
    limit: float | None
    folder: Path | None
    progress: bool
    warm_start: AmortizedPosterior | None = None

    def num_validation(self, seconds_each: float) -> int:
        """Simulations that are kept for validation; few where time is short and simulation slow."""
        num = self.num_simulations or DEFAULT_SIMULATIONS
        share = max(round(self.options.validation_share * num), min(MIN_VALIDATION, num // 4))
        if self.limit is not None and self.num_simulations is None:
            share = min(share, max(MIN_VALIDATION, int(0.05 * self.limit / seconds_each)))
        return min(share, MAX_VALIDATION)

    def shard_size(self, seconds_each: float) -> int:
        """Simulations per shard; smaller where a whole one would use up the time budget."""
        if self.limit is None:
            return SHARD_SIZE
        return min(SHARD_SIZE, max(256, int(0.03 * self.limit / seconds_each)))

    def resolved_options(self, bank: Bank) -> TrainingOptions:
        """The options with everything chosen."""
        num = None if bank.num_shards is None else bank.total * self.options.num_noise
        return self.options.resolved(num)


def open_bank(plan: Plan, stack: ExitStack) -> tuple[Bank, TrainingSet]:
    """The bank, filled or being filled, and the validation set."""
    store = None
    if plan.folder is not None:
        if rank() == 0:
            more: dict[str, Any] = {"num_simulations": plan.num_simulations, "budget": plan.limit}
            if plan.warm_start is not None:
                more["warm_start"] = fingerprint(plan.warm_start.state_dict())
            claim(plan.folder, settings(plan.simulator, plan.options, plan.networks, **more))
        store = SimulationStore(plan.folder / "simulations")
    validation, seconds_each = _validation(plan, store)
    bytes_each = num_bytes(validation) / max(len(validation), 1) * plan.options.num_noise
    bank = _open(plan, store, seconds_each, bytes_each, stack)
    stack.callback(bank.close)
    _fill(plan, bank)
    return bank, validation


def _validation(plan: Plan, store: SimulationStore | None) -> tuple[TrainingSet, float]:
    """The validation set, and the seconds that one simulation takes."""
    plan.simulator(PROBE, 2)  # what a first call costs more
    begin = time.perf_counter()
    plan.simulator(PROBE, NUM_TIMED)
    seconds_each = mean_over_ranks((time.perf_counter() - begin) / NUM_TIMED)
    if store is not None and -1 in store:
        found = store.read(-1)
    else:
        found = rounded(plan.simulator(-1, plan.num_validation(seconds_each)))
        if store is not None:
            store.write(-1, found)
    check_failures(found.num_failed, len(found) + found.num_failed, announce=False)
    return found, seconds_each


def _open(
    plan: Plan,
    store: SimulationStore | None,
    seconds_each: float,
    bytes_each: float,
    stack: ExitStack,
) -> Bank:
    """A bank that grows while a time budget lasts, or one of fixed size."""
    size = plan.shard_size(seconds_each)
    if plan.num_simulations is None and plan.limit is not None:
        workers = _workers(plan.options, plan.limit / 3)
        if num_ranks() == 1 and workers.num_workers:
            capacity = 10**6 if store is not None else int(MAX_MEMORY / bytes_each / size)
            return Bank(plan.simulator, size, None, size, store, workers, max(capacity, 1))
        num = 100 + int(min(0.3 * plan.limit / seconds_each, MAX_MEMORY / bytes_each))
    else:
        asked = plan.num_simulations or DEFAULT_SIMULATIONS
        num = asked - plan.num_validation(seconds_each)
    num = max(20, round(mean_over_ranks(float(num))))
    # A folder is common to all processes that train together, a temporary one is not.
    place = (0, 1) if store is None else (rank(), num_ranks())
    if store is None and num * bytes_each > MAX_MEMORY:
        store = SimulationStore(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    size = min(size, num)
    num_shards = -(-num // size)
    last_size = num - (num_shards - 1) * size
    workers = _workers(plan.options, num * seconds_each)
    return Bank(plan.simulator, size, num_shards, last_size, store, workers, num_shards, place)


def _workers(options: TrainingOptions, expected: float) -> Workers:
    """Who simulates what would take one process an expected number of seconds."""
    if options.num_workers is not None:
        return Workers(options.num_workers)
    spare = max(0, num_processors() // num_ranks() - 1)
    return Workers.active() or Workers(spare if expected > SLOW else 0)


def _fill(plan: Plan, bank: Bank) -> None:
    """Simulate what must be there before training begins; workers go on beside it."""
    if bank.num_shards is None:
        assert plan.limit is not None
        begin, shard = time.monotonic(), 0
        while shard < min(bank.capacity, max(1, ENOUGH_AHEAD // bank.shard_size)):
            bank.get(shard)
            shard += 1
            if time.monotonic() - begin > HEAD_START * plan.limit:
                break
        bank.start()
        return
    bank.get(0)
    bank.start()
    if bank.workers.num_workers:
        return
    with progress_bar(plan.progress, total=bank.total, desc="simulating", leave=False) as bar:
        for shard in range(bank.num_shards):
            if bank.is_mine(shard):
                bank.get(shard)
            bar.update(bank.size(shard))
