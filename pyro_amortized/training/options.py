r"""How to train: options, networks, time budgets."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..encode import Encoder, Encoding, Tokens
from ..errors import TrainingError
from ..guide.amortized_posterior import AmortizedPosterior
from ..networks import DeepSet, GridNetwork, TokenLayout, summary_size
from ..networks.conditional_flow import ConditionalFlow
from ..runtime.arguments import check_count, check_number

FEW, SOME = 20_000, 150_000  # training pairs
MIN_STEPS = 6000
MIN_EPOCHS = 12
# Smallest values of what is counted.
LEAST = {
    "batch_size": 1,
    "max_epochs": 1,
    "warmup": 0,
    "patience": 1,
    "num_noise": 1,
    "num_workers": 0,
    "num_threads": 1,
}
SIZES = {
    "width": 1,
    "depth": 1,
    "num_summary": 1,
    "set_width": 1,
    "num_layers": 0,
    "num_bins": 2,
    "layer_width": 1,
}


@dataclass(frozen=True)
class TrainingOptions:
    r"""How to train.

    Args:
        batch_size: Simulations per step, over all processes. Default: 512; with few simulations
            fewer (128 up to 20,000, 256 up to 150,000), whose noise keeps the networks from
            learning them by heart.
        max_epochs: Passes over the simulations; the learning rate reaches zero at the end of the
            last. Default: 12, more where that makes fewer than 6,000 steps.
        learning_rate: Largest learning rate.
        warmup: Number of steps over which the learning rate rises, at most a tenth of all.
        patience: After this many checks without a better validation loss the learning rate is
            brought down to zero at once, from the best weights, and training ends.
        min_improvement: Smallest fall of the validation loss, in nats, that counts as better.
        validation_share: Share of the simulations that is kept for validation.
        average_decay: Decay of the exponential average of the weights.
        max_gradient: Norm at which gradients are clipped.
        weight_decay: Decoupled decay of the weight matrices, per unit of learning rate. Default: 0;
            with few simulations 0.5 (up to 20,000) or 0.2 (up to 150,000).
        num_noise: Observations drawn per simulation: where the dynamics cost much, one solution
            gives several training pairs.
        num_workers: Processes that simulate ahead. Default: those of the active
            ``joblib.parallel_config``; without one, the other cores of this machine where
            simulation takes long, none where it does not.
        num_threads: Threads of torch while training, or None to leave them as they are. At these
            sizes a second thread gains a tenth, and costs tenfold as soon as another process wants
            the core.
        device: Where the networks are trained: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        autocast: Precision of the summary network's matrix products, for instance
            ``torch.bfloat16`` on a GPU, or None for float32.
        checkpoint_seconds: Least time between two checkpoints, if there is a folder for them.

    Raises:
        TrainingError: A setting is outside its range.
    """

    batch_size: int | None = None
    max_epochs: int | None = None
    learning_rate: float = 1e-2
    warmup: int = 100
    patience: int = 4
    min_improvement: float = 1e-4
    validation_share: float = 0.05
    average_decay: float = 0.998
    max_gradient: float = 5.0
    weight_decay: float | None = None
    num_noise: int = 1
    num_workers: int | None = None
    num_threads: int | None = 1
    device: str = "cpu"
    autocast: torch.dtype | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least, error=TrainingError)
        for name in ("learning_rate", "max_gradient"):
            check_number(name, getattr(self, name), 0, with_low=False, error=TrainingError)
        for name in ("min_improvement", "checkpoint_seconds"):
            check_number(name, getattr(self, name), 0, error=TrainingError)
        if self.weight_decay is not None:
            check_number("weight_decay", self.weight_decay, 0, error=TrainingError)
        for name, closed in (("validation_share", False), ("average_decay", True)):
            value = getattr(self, name)
            check_number(name, value, 0, 1, with_low=closed, with_high=False, error=TrainingError)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise TrainingError(
                f"The device {self.device!r} cannot be used: {str(error).splitlines()[0]}",
                "a device that torch sees here.",
                'pass `device="cpu"`, or install a build of torch for the device.',
            ) from error

    @property
    def chosen(self) -> tuple[int, int]:
        """Batch size and number of passes, once :meth:`resolved`."""
        assert self.batch_size is not None
        assert self.max_epochs is not None
        return self.batch_size, self.max_epochs

    def resolved(self, num_pairs: int | None) -> "TrainingOptions":
        """The same with what was left open chosen for a number of training pairs (None: without
        end).
        """
        few = num_pairs is not None and num_pairs <= FEW
        some = num_pairs is not None and num_pairs <= SOME
        size = self.batch_size or (128 if few else 256 if some else 512)
        decay = self.weight_decay
        if decay is None:
            decay = 0.5 if few else 0.2 if some else 0.0
        epochs = self.max_epochs
        if epochs is None:
            per_pass = max(1, (num_pairs or MIN_STEPS * size) // size)
            epochs = max(MIN_EPOCHS, -(-MIN_STEPS // per_pass))
        return replace(self, batch_size=size, weight_decay=decay, max_epochs=epochs)


@dataclass(frozen=True)
class Networks:
    r"""Encoding, summary network and flow; what is None is chosen from the shape of the problem.

    Args:
        encoding: How incomplete data become numbers, for instance ``Indicator()``.
        summary: The summary network: a class or function of a
            :class:`~pyro_amortized.networks.TokenLayout`, for instance ``AttentionNetwork`` or
            ``partial(AttentionNetwork, width=128)``. Default: ``GridNetwork`` on a common time
            grid, else ``DeepSet``, of the sizes below.
        grid: Read the values in fixed places of a time grid. Default: where all individuals of the
            design share their times.
        width: Width of the hidden layers.
        depth: Hidden layers between context and head. Default: 1 behind a grid without shared
            parameters, else 2.
        num_summary: Length of the summary of a set.
        set_width: Width of the layers that read single tokens.
        num_layers: Spline layers of the flow; 0 gives a Gaussian.
        num_bins: Bins of a spline.
        layer_width: Hidden units of a spline layer per parameter. Default: 64 up to four
            parameters, else 32.
        learn_shared: Learn also q(c | y), the posterior of the shared parameters given one
            individual's data, which the likelihood-free estimator needs. Default: where the
            observations have no density.

    Raises:
        TrainingError: A size is not positive.
    """

    encoding: Encoding = field(default_factory=Tokens)
    summary: Callable[[TokenLayout], nn.Module] | None = None
    grid: bool | None = None
    width: int = 128
    depth: int | None = None
    num_summary: int = 64
    set_width: int = 64
    num_layers: int = 2
    num_bins: int = 8
    layer_width: int | None = None
    learn_shared: bool | None = None

    def __post_init__(self) -> None:
        for name, least in SIZES.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least, error=TrainingError)

    @property
    def description(self) -> dict[str, Any]:
        """The choices as JSON."""
        encoding: Any = self.encoding
        chosen: Any = self.summary
        summary = None
        if chosen is not None:
            keywords = {n: str(x) for n, x in getattr(chosen, "keywords", {}).items()}
            chosen = getattr(chosen, "func", chosen)
            summary = [getattr(chosen, "__name__", str(chosen)), keywords]
        return vars(self) | {
            "encoding": [type(encoding).__name__, asdict(encoding)],
            "summary": summary,
        }

    def build(self, encoder: Encoder, num_latent: int, num_shared: int) -> AmortizedPosterior:
        """Untrained networks for an encoder."""
        choose: Callable[[TokenLayout], nn.Module] = partial(GridNetwork, width=self.width)
        if encoder.form.grid is None:
            choose = partial(DeepSet, num_summary=self.num_summary, width=self.set_width)
        summary = (self.summary or choose)(encoder.layout)
        simple = isinstance(summary, GridNetwork) and num_shared == 0
        num_summary = summary_size(summary) + encoder.num_static

        def flow(num: int, num_context: int) -> ConditionalFlow:
            return ConditionalFlow(
                num,
                num_context,
                num_layers=self.num_layers,
                width=self.width,
                depth=self.depth or (1 if simple else 2),
                num_bins=self.num_bins,
                layer_width=self.layer_width or (64 if num <= 4 else 32),
            )

        first = flow(num_latent, num_summary + num_shared)
        second = flow(num_shared, num_summary) if self.learn_shared and num_shared else None
        return AmortizedPosterior(encoder, summary, first, num_shared, second)


UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600}


def seconds(budget: str | float | None) -> float | None:
    r"""A time budget in seconds.

    Raises:
        TrainingError: It is not a positive number of seconds or a text like ``"5min"``.

    Example:
        >>> seconds("1.5min"), seconds("2 h"), seconds(30)
        (90.0, 7200.0, 30.0)
    """
    if budget is None:
        return None
    text = budget if isinstance(budget, str) else f"{budget} s"
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]+?)s?\s*", text.lower())
    try:
        found = float(match[1]) * UNITS[match[2]] if match is not None else 0.0
    except (KeyError, ValueError):
        found = 0.0
    if not 0 < found < math.inf:
        raise TrainingError(
            f"`budget` is {budget!r}.",
            'a positive number of seconds, or a text like "30s", "5min", "1.5h".',
            "correct the budget.",
        )
    return found
