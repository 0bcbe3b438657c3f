r"""What is to be simulated, by whom, and where it is kept."""

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..bank import MAX_MEMORY, Bank, num_bytes
from ..simulate import Simulator, TrainingSet, check_failures
from ..store import SimulationStore, in_single_precision
from ..workers import Workers
from .folder import claim, settings
from .loss import mean_over_ranks, num_ranks, rank
from .options import Networks, TrainingOptions

DEFAULT_SIMULATIONS = 300_000
SHARD_SIZE = 8192
MIN_VALIDATION = 200  # or a quarter of the simulations
MAX_VALIDATION = 8192
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
    """

    simulator: Simulator
    options: TrainingOptions
    networks: Networks
    num_simulations: int | None
    begin: float
    limit: float | None
    folder: Path | None
    progress: bool

    @property
    def num_validation(self) -> int:
        """Simulations that are kept for validation."""
        num = self.num_simulations or DEFAULT_SIMULATIONS
        share = max(round(self.options.validation_share * num), min(MIN_VALIDATION, num // 4))
        return min(share, MAX_VALIDATION)

    def resolved_options(self, bank: Bank) -> TrainingOptions:
        """The options with everything chosen."""
        num = None if bank.num_shards is None else bank.total * self.options.num_noise
        return self.options.resolved(num)


def open_bank(plan: Plan, stack: ExitStack) -> tuple[Bank, TrainingSet]:
    """The bank, filled or being filled, and the validation set."""
    store = None
    if plan.folder is not None:
        if rank() == 0:
            more = {"num_simulations": plan.num_simulations, "budget": plan.limit}
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
    begin, num = time.perf_counter(), plan.num_validation
    if store is None:
        found = in_single_precision(plan.simulator(-1, num))
    elif -1 in store:
        found = store.read(-1)
        plan.simulator(-1, min(num, 512))  # for the time it takes
        num = min(num, 512)
    else:
        found = in_single_precision(plan.simulator(-1, num))
        store.write(-1, found)
    check_failures(found.num_failed, plan.num_validation, announce=False)
    return found, (time.perf_counter() - begin) / num


def _open(
    plan: Plan,
    store: SimulationStore | None,
    seconds_each: float,
    bytes_each: float,
    stack: ExitStack,
) -> Bank:
    num = plan.num_simulations
    asked = plan.options.num_workers
    workers = Workers.active() or Workers(0 if asked is None else asked)
    spare = max(0, (os.cpu_count() or 1) - 1)
    if num is None and plan.limit is not None and num_ranks() == 1:
        if asked is None and not workers.num_workers and plan.limit > 3 * SLOW:
            workers = Workers(spare)
        if workers.num_workers:
            capacity = 10**6 if store is not None else int(MAX_MEMORY / bytes_each / SHARD_SIZE)
            return Bank(
                plan.simulator, SHARD_SIZE, None, SHARD_SIZE, store, workers, max(capacity, 1)
            )
        most = MAX_MEMORY / bytes_each
        num = int(min(0.3 * plan.limit / seconds_each, most)) + plan.num_validation + 100
    num = (num or DEFAULT_SIMULATIONS) - plan.num_validation
    num = max(20, round(mean_over_ranks(float(num))))
    expected = num * seconds_each
    if asked is None and not workers.num_workers and expected > SLOW:
        workers = Workers(spare)
    if store is None and num * bytes_each > MAX_MEMORY:
        store = SimulationStore(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    size = min(SHARD_SIZE, num)
    num_shards = -(-num // size)
    return Bank(
        plan.simulator,
        size,
        num_shards,
        num - (num_shards - 1) * size,
        store,
        workers,
        num_shards,
        (rank(), num_ranks()),
    )


def _fill(plan: Plan, bank: Bank) -> None:
    """Simulate what must be there before training begins; workers go on beside it."""
    if bank.num_shards is None:
        assert plan.limit is not None
        begin, shard = time.monotonic(), 0
        while shard < min(bank.capacity, ENOUGH_AHEAD // SHARD_SIZE):
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
    with tqdm(total=bank.total, desc="simulating", disable=not plan.progress, leave=False) as bar:
        for shard in range(bank.num_shards):
            if bank.is_mine(shard):
                bank.get(shard)
            bar.update(bank.size(shard))
