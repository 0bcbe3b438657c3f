r"""One training: steps, checks, checkpoints."""

import copy
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ..errors import TrainingError
from ..guide.amortized_posterior import AmortizedPosterior
from ..guide.training_history import TrainingHistory
from ..runtime.progress import progress_bar
from ..runtime.user_warnings import warn_user
from .batches import Feed, Pairs, Place
from .checkpoint import load_optimizer, read_checkpoint, write_checkpoint
from .learning_rate import Schedule
from .objective import Loss, log_q, mean_over_ranks, num_ranks, rank, shared_loss
from .optimizers import average, make_optimizers, set_rate, take_step
from .options import TrainingOptions
from .tracker import Tracker

NUM_CHECKS = 20


@dataclass
class Progress:
    """What a checkpoint remembers besides weights; JSON can hold it."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    num_pairs: int = 0
    num_skipped: int = 0
    cooling_from: int | None = None
    stalled: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    elapsed: float = 0.0
    planned: float | None = None
    running_total: float = 0.0
    running_count: int = 0
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: str = ""


class Run:
    r"""A training that can be stopped and taken up at any shard.

    Args:
        posterior: The networks, in float32, on their device.
        feed: What they are trained on.
        validation: What they are checked on.
        options: How, with everything chosen.
        deadline: Time at which training ends (``time.monotonic``), or None.
        checkpoint: File of the checkpoint, or None.
        tracker: Who listens.
    """

    def __init__(
        self,
        posterior: AmortizedPosterior,
        feed: Feed,
        validation: Pairs,
        options: TrainingOptions,
        *,
        deadline: float | None = None,
        checkpoint: Path | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.posterior, self.feed, self.options = posterior, feed, options
        self.device = posterior.flow.loc.device
        self.batch_size, self.num_passes = options.chosen
        self.validation, self.checkpoint, self.tracker = validation, checkpoint, tracker
        self.begin, self.deadline = time.monotonic(), deadline
        self.saved = self.begin
        self.loss = shared_loss(Loss(posterior, options.autocast))
        self.average = AveragedModel(posterior, multi_avg_fn=average(options.average_decay))
        self.best = copy.deepcopy(posterior.state_dict())
        self.optimizers = make_optimizers(posterior, options)
        planned = None if deadline is None else deadline - self.begin
        self.progress = Progress(planned=planned)
        if checkpoint is not None and checkpoint.is_file():
            self._resume(checkpoint)

    # The loop.

    def run(self, progress: bool) -> None:
        r"""Train to the end and load the best weights.

        Raises:
            TrainingError: The validation loss was never finite.
        """
        state = self.progress
        stream = self.feed.stream(state.epoch, state.position)
        bar = progress_bar(progress, total=100, initial=self._percent(), desc="training", unit="%")
        with bar, closing(stream):
            for place, pairs in stream:
                if self._over():
                    break
                self._shard(place, pairs.to(self.device))
                self._after(place, bar)
        if state.running_count or not state.validation_loss:
            self._check()
        state.stopped = state.stopped or self._reason()
        self.save()
        self._check_learned()
        self.posterior.load_state_dict(self.best)
        self.posterior.requires_grad_(False)

    def _after(self, place: Place, bar: "tqdm[Any]") -> None:
        """What follows a shard: the next place, a check, the bar, a checkpoint."""
        state, num_shards = self.progress, self.feed.bank.num_shards
        last = num_shards is not None and place.position == num_shards - 1
        state.epoch = place.epoch + 1 if last else place.epoch
        state.position = 0 if last else place.position + 1
        if self._due():
            self._check()
        if state.validation_loss:
            bar.set_postfix(validation=f"{state.validation_loss[-1]:.3f}", refresh=False)
        bar.update(self._percent() - bar.n)
        if time.monotonic() - self.saved >= self.options.checkpoint_seconds:
            self.save()
            self.saved = time.monotonic()

    def _check_learned(self) -> None:
        state = self.progress
        if not math.isfinite(state.best_loss):
            raise TrainingError(
                f"The validation loss was never finite in {state.step} steps, of which "
                f"{state.num_skipped} had a gradient that is not finite.",
                "a loss that falls.",
                "look at the simulated data (`simulate_training_set`) for extreme values, narrow "
                "the priors, or lower `TrainingOptions.learning_rate`.",
            )
        if state.num_skipped > 0.01 * state.step:
            warn_user(
                f"{state.num_skipped} of {state.step} training steps had a gradient that is not "
                "finite and moved nothing."
            )

    def _schedule(self) -> Schedule:
        bank, options = self.feed.bank, self.options
        total = None
        if self.deadline is None:
            assert bank.num_shards is not None
            per_pass = sum(
                max(1, bank.size(k) * options.num_noise // self.batch_size)
                for k in range(bank.num_shards)
            )
            total = per_pass * self.num_passes
        return Schedule(options.learning_rate, options.warmup, total, self.progress.cooling_from)

    def _share_of_time(self) -> float:
        if self.progress.planned is None:
            return 0.0
        return min(1.0, self._elapsed() / max(self.progress.planned, 1e-9))

    def _elapsed(self) -> float:
        return self.progress.elapsed + time.monotonic() - self.begin

    def _now(self) -> float:
        share = mean_over_ranks(self._share_of_time()) if self.deadline else 0.0
        return self._schedule().progress(self.progress.step, share)

    def _percent(self) -> int:
        return int(100 * self._schedule().progress(self.progress.step, self._share_of_time()))

    def _over(self) -> bool:
        finished = self.deadline is None and self.progress.epoch >= self.num_passes
        return bool(self.progress.stopped) or finished or self._now() >= 1.0

    def _reason(self) -> str:
        if self.progress.cooling_from is not None:
            return f"no better validation loss for {self.options.patience} checks, cooled down"
        if self.deadline is not None:
            return "time budget used"
        return "all epochs done"

    def _shard(self, place: Place, pairs: Pairs) -> None:
        size = min(self.batch_size, len(pairs))
        order = self.feed.rows(place, len(pairs)).to(self.device)
        schedule, state = self._schedule(), self.progress
        for j in range(len(pairs) // size):
            share = mean_over_ranks(self._share_of_time()) if self.deadline else 0.0
            done = schedule.progress(state.step, share)
            if done >= 1.0:
                return
            rows = order[j * size : (j + 1) * size]
            self._step(pairs[rows[rank() :: num_ranks()]], schedule.rate(state.step, done))
            state.num_pairs += size

    def _step(self, pairs: Pairs, rate: float) -> None:
        state = self.progress
        loss: Tensor = self.loss(pairs)
        set_rate(self.optimizers, rate)
        loss.backward()
        limit = self.options.max_gradient
        if take_step(self.optimizers, self.posterior, self.average, limit):
            state.running_total += float(loss.detach())
            state.running_count += 1
        else:
            state.num_skipped += 1
        state.step += 1

    # Checks.

    def _due(self) -> bool:
        return self._now() * NUM_CHECKS >= len(self.progress.validation_loss) + 1

    @property
    def averaged(self) -> AmortizedPosterior:
        """The networks with averaged weights."""
        module = self.average.module
        assert isinstance(module, AmortizedPosterior)
        return module

    @torch.no_grad()
    def validate(self) -> float:
        """Mean of :math:`-\\log q` over the validation pairs, averaged weights."""
        losses = [
            -log_q(self.averaged, self.validation[rows])
            for rows in torch.arange(len(self.validation), device=self.device).split(4096)
        ]
        return float(torch.cat(losses).mean())

    def _check(self) -> None:
        state = self.progress
        count = max(state.running_count, 1)
        total = state.running_total / count if state.running_count else math.nan
        state.training_loss.append(mean_over_ranks(total))
        state.validation_loss.append(mean_over_ranks(self.validate()))
        state.learning_rate.append(self._schedule().rate(state.step, self._now()))
        state.seconds.append(self._elapsed())
        state.running_total, state.running_count = 0.0, 0
        found = state.validation_loss[-1]
        if found < state.best_loss:
            better = found < state.best_loss - self.options.min_improvement
            state.best_loss, state.best_epoch = found, len(state.validation_loss) - 1
            state.stalled = 0 if better else state.stalled + 1
            self.best = copy.deepcopy(self.averaged.state_dict())
        else:
            state.stalled += 1
        self._tell()
        if state.stalled >= self.options.patience:
            self._cool_down()

    def _cool_down(self) -> None:
        """Data, not time, are the limit: end soon, from the best weights."""
        state = self.progress
        if state.cooling_from is not None:
            state.stopped = f"no better validation loss for {self.options.patience} checks"
        elif self._now() < 0.75:
            state.cooling_from, state.stalled = state.step, 0
            self.posterior.load_state_dict(self.best)
            self.average.module.load_state_dict(self.best)
        else:
            state.stalled = 0

    def _tell(self) -> None:
        state = self.progress
        if self.tracker is None or rank():
            return
        for name in ("training_loss", "validation_loss", "learning_rate"):
            self.tracker.log_metric(name, getattr(state, name)[-1], state.step)
        self.tracker.log_metric("num_pairs", float(state.num_pairs), state.step)

    # Checkpoints and record.

    def save(self) -> None:
        """Write the checkpoint, if there is a place for it."""
        if self.checkpoint is None or rank():
            return
        modules: dict[str, nn.Module | dict[str, Tensor]] = {
            "posterior": self.posterior,
            "average": self.average,
            "best": self.best,
        }
        progress = asdict(self.progress) | {"elapsed": self._elapsed()}
        write_checkpoint(self.checkpoint, modules, self.optimizers, progress)

    def _resume(self, path: Path) -> None:
        owners, progress = read_checkpoint(path)
        self.posterior.load_state_dict(owners["posterior"])
        self.average.load_state_dict(owners["average"])
        self.best = {name: x.to(self.device) for name, x in owners["best"].items()}
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, owners.get(name, {}))
        self.progress = Progress(**progress)

    def history(self, **counts: Any) -> TrainingHistory:
        """The record of the training."""
        state = self.progress
        return TrainingHistory(
            training_loss=state.training_loss,
            validation_loss=state.validation_loss,
            learning_rate=state.learning_rate,
            seconds=state.seconds,
            best_epoch=state.best_epoch,
            num_steps=state.step,
            num_pairs=state.num_pairs,
            num_skipped=state.num_skipped,
            training_seconds=self._elapsed(),
            stopped=state.stopped,
            **counts,
        )
