r"""The learning phase: simulate, then minimise :math:`-E \log q(\phi \mid y, c)` over the
simulations.

Plain torch: Adam with a short warm-up and a cosine that ends at zero, averaged weights, a
validation set, early stopping; the weights with the best validation loss are the result.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from .cohort import Cohort, Design
from .encode import Encoded, Encoder
from .errors import TrainingError
from .flows import ConditionalFlow
from .guide import AmortizedGuide
from .history import TrainingHistory
from .isolation import fork_seed, make_generator, seeded
from .missing import Resample
from .networks import DeepSet
from .posterior import AmortizedPosterior
from .simulate import (
    TrainingDistribution,
    TrainingSet,
    default_training_distribution,
    simulate_training_set,
)
from .structure import Model, read_structure


@dataclass(frozen=True)
class TrainingOptions:
    r"""How to train.

    Args:
        batch_size: Simulations per step.
        max_epochs: Passes over the simulations; the learning rate reaches zero at the end of the
            last.
        learning_rate: Largest learning rate.
        warmup: Share of the steps over which the learning rate rises.
        patience: Stop after this many epochs without a better validation loss.
        validation_share: Share of the simulations that is kept for validation.
        average_decay: Decay of the exponential average of the weights.
        max_gradient: Norm at which gradients are clipped.
        num_threads: Threads of torch while training, or None to leave them as they are. At these
            sizes a second thread gains a tenth, and costs tenfold as soon as another process wants
            the core.

    Raises:
        TrainingError: A setting is outside its range.
    """

    batch_size: int = 512
    max_epochs: int = 16
    learning_rate: float = 5e-3
    warmup: float = 0.03
    patience: int = 6
    validation_share: float = 0.05
    average_decay: float = 0.998
    max_gradient: float = 5.0
    num_threads: int | None = 1

    def __post_init__(self) -> None:
        counts = min(self.batch_size, self.max_epochs, self.patience) >= 1
        shares = (
            0 < self.validation_share < 1 and 0 <= self.warmup < 1 and 0 <= self.average_decay < 1
        )
        if not (counts and shares and self.learning_rate > 0 and self.max_gradient > 0):
            raise TrainingError(
                f"Training options {self}.",
                "counts of at least 1, shares between 0 and 1, a positive learning rate and "
                "gradient norm.",
                "correct the option that is outside its range.",
            )


def train(
    model: Model,
    data: Cohort | Design,
    *,
    num_simulations: int = 300_000,
    seed: int = 0,
    options: TrainingOptions = TrainingOptions(),
    training_distribution: TrainingDistribution | None = None,
    progress: bool = True,
) -> AmortizedGuide:
    r"""Train an amortized guide for a mixed-effects program.

    Args:
        model: The Pyro program.
        data: A cohort, whose individuals (times, doses, covariates) are resampled with extra random
            missingness; or a design of your own, ``(num_individuals, generator) -> Cohort``.
        num_simulations: Number of simulated individuals.
        seed: Seed of everything that is random: simulation, initial weights, order of the batches.
        options: How to train.
        training_distribution: What individual and shared parameters are drawn from. Default: see
            :func:`~pyro_amortized.simulate.default_training_distribution`.
        progress: Show progress bars on standard error.

    Returns:
        The guide; ``guide.history`` tells how training went.

    Raises:
        ModelError: The program is not a mixed-effects model that the library can read.
        TrainingError: Too few simulations, or too many of them not finite.
    """
    if num_simulations < 100:
        raise TrainingError(
            f"`num_simulations` is {num_simulations}.",
            "at least 100, usually 100,000 or more.",
            "pass a larger `num_simulations=`.",
        )
    generator = make_generator(seed)
    design: Design = Resample(data) if isinstance(data, Cohort) else data
    example = data if isinstance(data, Cohort) else design(64, generator)
    structure = read_structure(model, example)
    distribution = training_distribution or default_training_distribution(
        structure, example, generator
    )
    begin = time.perf_counter()
    simulations = simulate_training_set(
        structure, design, distribution, num_simulations, seed=generator, progress=progress
    )
    seconds = time.perf_counter() - begin
    with seeded(generator):
        posterior = build_posterior(simulations, structure.series, distribution)
        history = fit_posterior(
            posterior,
            simulations,
            options,
            generator=make_generator(fork_seed(generator)),
            progress=progress,
            simulation_seconds=seconds,
        )
    return AmortizedGuide(model, structure, posterior.double(), distribution, history)


def build_posterior(
    simulations: TrainingSet, series: list[str], distribution: TrainingDistribution
) -> AmortizedPosterior:
    """Untrained networks for a training set, with its scales."""
    encoder = Encoder.fitted(simulations.cohort, series)
    summary = DeepSet(encoder.num_features, encoder.num_static)
    num_latent, num_shared = simulations.unconstrained.shape[1], simulations.shared.shape[1]
    flow = ConditionalFlow(num_latent, summary.num_summary + encoder.num_static + num_shared)
    flow.loc.copy_(distribution.loc)
    flow.scale_tril.copy_(distribution.scale_tril)
    posterior = AmortizedPosterior(encoder, summary, flow, num_shared)
    posterior.shared.fit(simulations.shared)
    return posterior


@dataclass(frozen=True, eq=False)
class _Batches:
    """Encoded simulations, in float32."""

    encoded: Encoded
    unconstrained: Tensor
    shared: Tensor

    def __len__(self) -> int:
        return len(self.encoded)

    def loss(self, posterior: AmortizedPosterior, rows: Tensor) -> Tensor:
        summary = posterior.summarize_encoded(self.encoded[rows])
        return -posterior.given(summary, self.shared[rows]).log_prob(self.unconstrained[rows])


def _encode(posterior: AmortizedPosterior, simulations: TrainingSet) -> _Batches:
    parts = []
    with torch.no_grad():
        for start in range(0, len(simulations), 50_000):
            part = posterior.encoder(simulations.cohort[start : start + 50_000])
            parts.append((part.tokens.float(), part.mask, part.static.float()))
    encoded = Encoded(*(torch.cat(x) for x in zip(*parts, strict=True)))
    return _Batches(encoded, simulations.unconstrained.float(), simulations.shared)


def fit_posterior(
    posterior: AmortizedPosterior,
    simulations: TrainingSet,
    options: TrainingOptions,
    *,
    generator: Generator,
    progress: bool = False,
    simulation_seconds: float = 0.0,
) -> TrainingHistory:
    r"""Train the networks of a posterior in place and load the best weights.

    Args:
        posterior: The posterior, in float32.
        simulations: The training set.
        options: How to train.
        generator: Order of the batches.
        progress: Show a progress bar.
        simulation_seconds: Wall time of the simulation, for the history.
    """
    threads = torch.get_num_threads()
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    try:
        return _Run(posterior, _encode(posterior, simulations), options, generator).run(
            progress, simulations.num_failed, simulation_seconds
        )
    finally:
        torch.set_num_threads(threads)


def _average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average whose memory grows with the number of steps, so that the start is
    forgotten.
    """

    def update(average: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        return average.lerp(current, max(1 - decay, 10.0 / (10.0 + float(num_averaged))))

    return update


class _Run:
    """One training: the state that its epochs share."""

    def __init__(
        self,
        posterior: AmortizedPosterior,
        batches: _Batches,
        options: TrainingOptions,
        generator: Generator,
    ) -> None:
        self.posterior, self.batches, self.options, self.generator = (
            posterior,
            batches,
            options,
            generator,
        )
        order = torch.randperm(len(batches), generator=generator)
        num_validation = max(1, round(options.validation_share * len(batches)))
        self.validation, self.training = order[:num_validation], order[num_validation:]
        steps = options.max_epochs * max(1, len(self.training) // options.batch_size)
        weights = [p for p in posterior.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(weights, lr=options.learning_rate, fused=True)
        warmup = max(1, round(options.warmup * steps))
        self.schedule = torch.optim.lr_scheduler.SequentialLR(
            self.optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.05, 1.0, warmup),
                torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, max(1, steps - warmup)),
            ],
            [warmup],
        )
        self.average = AveragedModel(posterior, avg_fn=_average(options.average_decay))

    def run(self, progress: bool, num_failed: int, simulation_seconds: float) -> TrainingHistory:
        begin = time.perf_counter()
        training_loss: list[float] = []
        validation_loss: list[float] = []
        rates: list[float] = []
        best_epoch, best, stopped = 0, copy.deepcopy(self.posterior.state_dict()), "all epochs done"
        with tqdm(
            total=self.options.max_epochs, desc="training", disable=not progress, unit="epoch"
        ) as bar:
            for epoch in range(self.options.max_epochs):
                training_loss.append(self._epoch())
                validation_loss.append(self._validate())
                rates.append(float(self.optimizer.param_groups[0]["lr"]))
                bar.set_postfix(
                    loss=f"{training_loss[-1]:.3f}", validation=f"{validation_loss[-1]:.3f}"
                )
                bar.update()
                if validation_loss[-1] <= min(validation_loss):
                    best_epoch, best = epoch, copy.deepcopy(self._averaged.state_dict())
                elif epoch - best_epoch >= self.options.patience:
                    stopped = f"no better validation loss for {self.options.patience} epochs"
                    break
        self.posterior.load_state_dict(best)
        self.posterior.requires_grad_(False)
        return TrainingHistory(
            training_loss,
            validation_loss,
            rates,
            best_epoch,
            len(self.batches),
            num_failed,
            simulation_seconds,
            time.perf_counter() - begin,
            stopped,
        )

    @property
    def _averaged(self) -> AmortizedPosterior:
        module = self.average.module
        assert isinstance(module, AmortizedPosterior)
        return module

    def _epoch(self) -> float:
        size, total, count = self.options.batch_size, 0.0, 0
        order = self.training[torch.randperm(len(self.training), generator=self.generator)]
        num_batches = max(1, len(order) // size)
        for j in range(num_batches):
            loss = self.batches.loss(self.posterior, order[j * size : (j + 1) * size]).mean()
            self.optimizer.zero_grad(set_to_none=True)
            if bool(loss.isfinite()):
                loss.backward()
                nn.utils.clip_grad_norm_(self.posterior.parameters(), self.options.max_gradient)
                self.optimizer.step()
                self.average.update_parameters(self.posterior)
                total, count = total + loss.item(), count + 1
            self.schedule.step()
        return total / max(count, 1) if count else float("nan")

    def _validate(self) -> float:
        with torch.no_grad():
            losses = [
                self.batches.loss(self._averaged, rows) for rows in self.validation.split(8192)
            ]
        return float(torch.cat(losses).mean())
