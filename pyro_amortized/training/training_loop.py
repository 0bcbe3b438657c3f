r"""The training loop: steps on the pairs of a feed, checks of the validation loss, checkpoints.

After each share of the progress the averaged weights are checked on new data; the weights of the
best check are the result. A run that has a checkpoint continues from it at the next shard.
"""

import copy
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass
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
from .batches import Feed, Pairs, ShardPlace
from .distributed_training import mean_over_ranks, num_ranks, rank, with_averaged_gradients
from .learning_rate import COOL_DOWN, RateSchedule
from .loss_tracking import Tracker
from .objective import Loss, log_q
from .optimizers import average, make_optimizers, set_rate, take_step
from .options import TrainingOptions
from .run_folder import load_optimizer, read_checkpoint, write_checkpoint
from .time_budgets import used_share
from .training_progress import TrainingProgress


@dataclass(frozen=True)
class LoopSettings:
    r"""How often the loop looks at the losses.

    Args:
        num_checks: Checks of the validation loss during a training.
        validation_batch: Pairs that are checked at once, which bounds the memory of a check.
        max_skipped: Share of the steps whose gradient is not finite above which the user is warned.
    """

    num_checks: int = 20
    validation_batch: int = 4096
    max_skipped: float = 0.01


SETTINGS = LoopSettings()


class Run:
    r"""A training that can be interrupted and continued at any shard.

    Args:
        posterior: The networks, in float32, on their device.
        feed: The pairs they are trained on.
        validation: The pairs their loss is checked on.
        options: How to train; :meth:`TrainingOptions.resolved`.
        deadline: Time at which training ends (``time.monotonic``), or None.
        checkpoint: File of the checkpoint, or None.
        tracker: Records the losses, or None.
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
        self.loss = with_averaged_gradients(Loss(posterior, options.autocast))
        self.average = AveragedModel(posterior, multi_avg_fn=average(options.average_decay))
        self.best = copy.deepcopy(posterior.state_dict())
        self.optimizers = make_optimizers(posterior, options)
        planned = None if deadline is None else deadline - self.begin
        self.progress = TrainingProgress(planned=planned)
        if checkpoint is not None and checkpoint.is_file():
            self._resume(checkpoint)

    # The loop.

    def run(self, progress: bool) -> None:
        r"""Train to the end and load the best weights.

        Args:
            progress: Whether to show a progress bar.

        Raises:
            TrainingError: The validation loss was never finite.
        """
        state = self.progress
        stream = self.feed.stream(state.epoch, state.position)
        bar = progress_bar(progress, total=100, initial=self._percent(), desc="training", unit="%")
        with bar, closing(stream):
            for place, pairs in stream:
                if self._is_over():
                    break
                self._train_on_shard(place, pairs.to(self.device))
                self._finish_shard(place, bar)
        if state.running_count or not state.validation_loss:
            self._check()
        state.stopped = state.stopped or self._reason()
        self.save()
        self._check_losses()
        self.posterior.load_state_dict(self.best)
        self.posterior.requires_grad_(False)

    def _finish_shard(self, place: ShardPlace, bar: "tqdm[Any]") -> None:
        """Move to the next place; check the loss and write a checkpoint where it is time."""
        state, num_shards = self.progress, self.feed.bank.num_shards
        is_last = num_shards is not None and place.position == num_shards - 1
        state.epoch = place.epoch + 1 if is_last else place.epoch
        state.position = 0 if is_last else place.position + 1
        if self._is_check_due():
            self._check()
        if state.validation_loss:
            bar.set_postfix(validation=f"{state.validation_loss[-1]:.3f}", refresh=False)
        bar.update(self._percent() - bar.n)
        if time.monotonic() - self.saved >= self.options.checkpoint_seconds:
            self.save()
            self.saved = time.monotonic()

    def _check_losses(self) -> None:
        """Raise unless some validation loss was finite; warn of skipped steps."""
        state = self.progress
        if not math.isfinite(state.best_loss):
            raise TrainingError(
                f"The validation loss was never finite in {state.step} steps, of which "
                f"{state.num_skipped} had a gradient that is not finite.",
                "a loss that falls.",
                "look for extreme values in simulated data (`plots.prior_predictive`), narrow "
                "the priors, or lower `TrainingOptions.learning_rate`.",
            )
        if state.num_skipped > SETTINGS.max_skipped * state.step:
            warn_user(
                f"{state.num_skipped} of {state.step} training steps had a gradient that is not "
                "finite and were skipped."
            )

    def _schedule(self) -> RateSchedule:
        bank, options = self.feed.bank, self.options
        total = None
        if self.deadline is None:
            assert bank.num_shards is not None
            per_pass = sum(
                max(1, bank.size(k) * options.num_noise // self.batch_size)
                for k in range(bank.num_shards)
            )
            total = per_pass * self.num_passes
        return RateSchedule(options.peak_rate, options.warmup, total, self.progress.cooling_from)

    def _share_of_time(self) -> float:
        if self.progress.planned is None:
            return 0.0
        return used_share(self._elapsed(), self.progress.planned)

    def _elapsed(self) -> float:
        return self.progress.elapsed + time.monotonic() - self.begin

    def _common_share(self) -> float:
        """Share of the time budget that is used, the same in all processes that train together."""
        return mean_over_ranks(self._share_of_time()) if self.deadline else 0.0

    def _current_progress(self) -> float:
        """Progress, the same in all processes that train together."""
        return self._schedule().progress(self.progress.step, self._common_share())

    def _percent(self) -> int:
        return int(100 * self._schedule().progress(self.progress.step, self._share_of_time()))

    def _is_over(self) -> bool:
        finished = self.deadline is None and self.progress.epoch >= self.num_passes
        return bool(self.progress.stopped) or finished or self._current_progress() >= 1.0

    def _reason(self) -> str:
        if self.progress.cooling_from is not None:
            return f"no better validation loss for {self.options.patience} checks, cooled down"
        if self.deadline is not None:
            return "time budget used"
        return f"all passes over the simulations done ({self.num_passes})"

    def _train_on_shard(self, place: ShardPlace, pairs: Pairs) -> None:
        size = min(self.batch_size, len(pairs))
        order = self.feed.row_order(place, len(pairs)).to(self.device)
        schedule, state = self._schedule(), self.progress
        for j in range(len(pairs) // size):
            done = schedule.progress(state.step, self._common_share())
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

    def _is_check_due(self) -> bool:
        return (
            self._current_progress() * SETTINGS.num_checks >= len(self.progress.validation_loss) + 1
        )

    @property
    def averaged(self) -> AmortizedPosterior:
        """The networks with averaged weights."""
        module = self.average.module
        assert isinstance(module, AmortizedPosterior)
        return module

    @torch.no_grad()
    def validate(self) -> float:
        """Mean of :math:`-\\log q` over the validation pairs, averaged weights."""
        size = SETTINGS.validation_batch
        losses = [
            -log_q(self.averaged, self.validation[rows])
            for rows in torch.arange(len(self.validation), device=self.device).split(size)
        ]
        return float(torch.cat(losses).mean())

    def _check(self) -> None:
        """Record the losses, and the weights if they are the best so far."""
        state = self.progress
        count = max(state.running_count, 1)
        total = state.running_total / count if state.running_count else math.nan
        state.training_loss.append(mean_over_ranks(total))
        state.validation_loss.append(mean_over_ranks(self.validate()))
        state.learning_rate.append(self._schedule().rate(state.step, self._current_progress()))
        state.seconds.append(self._elapsed())
        state.running_total, state.running_count = 0.0, 0
        loss = state.validation_loss[-1]
        if loss < state.best_loss:
            is_better = loss < state.best_loss - self.options.min_improvement
            state.best_loss, state.best_check = loss, len(state.validation_loss) - 1
            state.stalled = 0 if is_better else state.stalled + 1
            self.best = copy.deepcopy(self.averaged.state_dict())
        else:
            state.stalled += 1
        self._track()
        if state.stalled >= self.options.patience:
            self._cool_down()

    def _cool_down(self) -> None:
        """End soon, from the best weights: the number of simulations limits the result, and more
        time would not improve it.
        """
        state = self.progress
        if state.cooling_from is not None:
            state.stopped = f"no better validation loss for {self.options.patience} checks"
        elif self._current_progress() < COOL_DOWN.latest:
            state.cooling_from, state.stalled = state.step, 0
            self.posterior.load_state_dict(self.best)
            self.average.module.load_state_dict(self.best)
        else:
            state.stalled = 0

    def _track(self) -> None:
        """Give the losses to the tracker."""
        state = self.progress
        if self.tracker is None or rank():
            return
        for name in ("training_loss", "validation_loss", "learning_rate"):
            self.tracker.log_metric(name, getattr(state, name)[-1], state.step)
        self.tracker.log_metric("num_pairs", float(state.num_pairs), state.step)

    # Checkpoints and history.

    def save(self) -> None:
        """Write the checkpoint, if the run has a file for it."""
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
        self.progress = TrainingProgress(**progress)

    def history(self, **counts: Any) -> TrainingHistory:
        r"""The history of the training.

        Args:
            **counts: Entries that the loop does not know, by name.
        """
        state = self.progress
        return TrainingHistory(
            training_loss=state.training_loss,
            validation_loss=state.validation_loss,
            learning_rate=state.learning_rate,
            seconds=state.seconds,
            best_check=state.best_check,
            num_steps=state.step,
            num_pairs=state.num_pairs,
            num_skipped=state.num_skipped,
            training_seconds=self._elapsed(),
            stopped=state.stopped,
            **counts,
        )
