r"""What is simulated for a training: how many individuals, in which shards, by which processes, and
whether they are kept in memory or on disk.
"""

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
from .distributed_training import mean_over_ranks, num_ranks, rank
from .network_options import Networks
from .options import TrainingOptions
from .run_folder import PROBE, claim_folder, run_settings
from .simulation.failure_checks import check_failures
from .simulation.random_streams import VALIDATION
from .simulation.shard_queue import SimulationBank
from .simulation.shard_simulation import Simulator
from .simulation.shard_store import SimulationStore
from .simulation.training_sets import TrainingSet, num_bytes, rounded


@dataclass(frozen=True)
class PlanSettings:
    r"""Sizes of what is simulated.

    Args:
        num_simulations: Number of simulations if neither a number nor a time budget is given.
        min_simulations: Smallest number of training simulations.
        shard_size: Simulations per shard: some seconds of work for slow models, and some megabytes.
        min_shard_size: Smallest number of simulations per shard under a time budget.
        shard_share: Largest share of a time budget that one shard may take.
        min_validation: Smallest number of validation simulations, or a quarter of all simulations.
        max_validation: Largest number of validation simulations; more would slow down the checks
            of the loss.
        validation_share: Largest share of a time budget that the validation set may take.
        num_timed: Simulations by which the time of one is measured.
        slow_seconds: Seconds of simulation from which worker processes are started; their start
            takes a few seconds.
        worker_share: Share of a time budget whose simulation decides whether workers are started.
        simulation_share: Largest share of a time budget for simulation without workers, when all
            simulations are made before training begins.
        head_start: Share of a time budget that is simulated before training begins beside workers.
        num_ahead: Number of simulations that are enough for training to begin.
        max_memory: Bytes of simulations that are kept in memory; more go to a temporary folder.
        max_shards: Largest number of shards in a folder under a time budget.
        extra_simulations: Simulations beyond those that fit into the simulation share of a budget,
            so that a very slow model has some.
    """

    num_simulations: int = 300_000
    min_simulations: int = 20
    shard_size: int = 8192
    min_shard_size: int = 256
    shard_share: float = 0.03
    min_validation: int = 200
    max_validation: int = 8192
    validation_share: float = 0.05
    num_timed: int = 256
    slow_seconds: float = 8.0
    worker_share: float = 1 / 3
    simulation_share: float = 0.3
    head_start: float = 0.1
    num_ahead: int = 100_000
    max_memory: int = 2 * 2**30
    max_shards: int = 10**6
    extra_simulations: int = 100


SETTINGS = PlanSettings()


@dataclass(frozen=True, eq=False)
class Plan:
    r"""The simulations of one training.

    Args:
        simulator: Makes the simulations.
        options: How to train.
        networks: Sizes of the networks.
        num_simulations: Number that the user asked for, or None.
        begin: When the training began (``time.monotonic``).
        limit: Time budget in seconds, or None.
        folder: Where simulations and checkpoints are kept, or None.
        progress: Whether to show progress bars.
        warm_start: Networks that are trained further, or None.
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

    @property
    def deadline(self) -> float | None:
        """When the time budget ends (``time.monotonic``), or None."""
        return None if self.limit is None else self.begin + self.limit

    def num_validation(self, seconds_each: float) -> int:
        r"""Number of validation simulations; fewer where the budget is short and the model slow.

        Args:
            seconds_each: Seconds that one simulation takes.
        """
        num = self.num_simulations or SETTINGS.num_simulations
        least = SETTINGS.min_validation
        share = max(round(self.options.validation_share * num), min(least, num // 4))
        if self.limit is not None and self.num_simulations is None:
            affordable = int(SETTINGS.validation_share * self.limit / seconds_each)
            share = min(share, max(least, affordable))
        return min(share, SETTINGS.max_validation)

    def shard_size(self, seconds_each: float) -> int:
        """Simulations per shard; fewer where a shard of the usual size takes too much of the
        budget.
        """
        if self.limit is None:
            return SETTINGS.shard_size
        affordable = int(SETTINGS.shard_share * self.limit / seconds_each)
        return min(SETTINGS.shard_size, max(SETTINGS.min_shard_size, affordable))

    def resolved_options(self, bank: SimulationBank) -> TrainingOptions:
        """The options, with a value for all that was left open."""
        num = None if bank.num_shards is None else bank.total * self.options.num_noise
        populations = self.simulator.distribution.individual.populations
        return self.options.resolved(num, 0 if populations is None else len(populations.largest))


def open_bank(plan: Plan, stack: ExitStack) -> tuple[SimulationBank, TrainingSet]:
    r"""The shards of a training, and its validation set.

    Args:
        plan: What is simulated.
        stack: Closes the bank, and deletes its temporary folder if there is one.
    """
    store = None
    if plan.folder is not None:
        if rank() == 0:
            more: dict[str, Any] = {"num_simulations": plan.num_simulations, "budget": plan.limit}
            if plan.warm_start is not None:
                more["warm_start"] = fingerprint(plan.warm_start.state_dict())
            settings = run_settings(plan.simulator, plan.options, plan.networks, **more)
            claim_folder(plan.folder, settings)
        store = SimulationStore(plan.folder / "simulations")
    validation, seconds_each = _validation(plan, store)
    bytes_each = num_bytes(validation) / max(len(validation), 1) * plan.options.num_noise
    bank = _bank(plan, store, seconds_each, bytes_each, stack)
    stack.callback(bank.close)
    _fill(plan, bank)
    return bank, validation


def _validation(plan: Plan, store: SimulationStore | None) -> tuple[TrainingSet, float]:
    """The validation set, and the seconds that one simulation takes."""
    # A first run takes longer and would distort the time. A few individuals might lack what all
    # together have, for instance a second occasion.
    plan.simulator(PROBE.shard, SETTINGS.num_timed)
    begin = time.perf_counter()
    plan.simulator(PROBE.shard, SETTINGS.num_timed)
    seconds_each = mean_over_ranks((time.perf_counter() - begin) / SETTINGS.num_timed)
    if store is not None and VALIDATION in store:
        validation = store.read(VALIDATION)
    else:
        validation = rounded(plan.simulator(VALIDATION, plan.num_validation(seconds_each)))
        if store is not None:
            store.write(VALIDATION, validation)
    check_failures(validation.num_failed, len(validation) + validation.num_failed, announce=False)
    return validation, seconds_each


def _bank(
    plan: Plan,
    store: SimulationStore | None,
    seconds_each: float,
    bytes_each: float,
    stack: ExitStack,
) -> SimulationBank:
    """A bank that grows while a time budget lasts, or one of fixed size."""
    size, limit = plan.shard_size(seconds_each), plan.limit
    if plan.num_simulations is None and limit is not None:
        workers = _workers(plan.options, limit * SETTINGS.worker_share)
        if num_ranks() == 1 and workers.num_workers:
            in_memory = int(SETTINGS.max_memory / bytes_each / size)
            capacity = SETTINGS.max_shards if store is not None else max(in_memory, 1)
            return SimulationBank(plan.simulator, size, None, size, store, workers, capacity)
        affordable = SETTINGS.simulation_share * limit / seconds_each
        num = SETTINGS.extra_simulations + int(min(affordable, SETTINGS.max_memory / bytes_each))
    else:
        requested = plan.num_simulations or SETTINGS.num_simulations
        num = requested - plan.num_validation(seconds_each)
    num = max(SETTINGS.min_simulations, round(mean_over_ranks(float(num))))
    # The folder of a run is common to all processes that train together, a temporary one is not.
    place = (0, 1) if store is None else (rank(), num_ranks())
    if store is None and num * bytes_each > SETTINGS.max_memory:
        store = SimulationStore(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    size = min(size, num)
    num_shards = -(-num // size)
    last_size = num - (num_shards - 1) * size
    workers = _workers(plan.options, num * seconds_each)
    return SimulationBank(
        plan.simulator, size, num_shards, last_size, store, workers, num_shards, place
    )


def _workers(options: TrainingOptions, seconds: float) -> Workers:
    """Processes for a simulation that takes one process a number of seconds."""
    if options.num_workers is not None:
        return Workers(options.num_workers)
    spare = max(0, num_processors() // num_ranks() - 1)
    return Workers.active() or Workers(spare if seconds > SETTINGS.slow_seconds else 0)


def _fill(plan: Plan, bank: SimulationBank) -> None:
    """Simulate what is needed before training begins; workers continue beside the training."""
    if bank.num_shards is None:
        assert plan.limit is not None
        begin, shard = time.monotonic(), 0
        while shard < min(bank.capacity, max(1, SETTINGS.num_ahead // bank.shard_size)):
            bank.get(shard)
            shard += 1
            if time.monotonic() - begin > SETTINGS.head_start * plan.limit:
                break
        bank.start()
        return
    bank.get(0)
    bank.start()
    if bank.workers.num_workers:
        return
    with progress_bar(plan.progress, total=bank.total, desc="simulating", leave=False) as bar:
        for shard in range(bank.num_shards):
            if bank.is_own(shard):
                bank.get(shard)
            bar.update(bank.size(shard))
