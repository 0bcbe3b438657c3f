r"""Training of the second flow, which follows the Newton steps of a sharpened guide.

Simulations are drawn as for the first training. For each of them the networks of the guide and the
Newton steps give the modes m and the scales L, and the second flow learns the distribution of
:math:`z = L^{-1}(u - m)` around the mode that the true parameters belong to, see
:mod:`pyro_amortized.guide.newton_posterior`.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..cohort import Cohort, Design
from ..errors import TrainingError
from ..guide import AmortizedGuide
from ..guide.amortized_posterior import AmortizedPosterior
from ..guide.newton_posterior import SharpenedPosterior
from ..guide.other_models import check_guide
from ..guide.sharpened_distribution import (
    SharpenedDistribution,
    log_mixture,
    log_tails,
    log_with_tails,
)
from ..guide.training_history import TrainingHistory
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution, FlowSizes
from ..runtime.arguments import check_count
from ..runtime.isolation import seeded, torch_threads
from ..runtime.progress import progress_bar
from .learning_rate import RateSchedule
from .optimizers import average, make_optimizers, set_rate, take_step
from .options import TrainingOptions
from .sharpening_choice import CHOICE
from .simulation.random_streams import Purpose, random_stream
from .simulation.shard_simulation import Simulator
from .time_budgets import budget_seconds, used_share
from .training_design import training_design


@dataclass(frozen=True)
class SharpeningSettings:
    r"""Sizes of the training of the second flow.

    Args:
        shard_size: Simulations whose Newton steps are taken at once.
        min_steps: Steps that the training has at least.
        patience: Passes without a better loss on new data after which training ends. The flow is
            small and overfits within some passes (5,400 rows did, decision 026).
        validation_share: Share of the simulations that is kept for validation.
        max_validation: Largest number of simulations that is kept for validation.
        max_z: Values of z beyond it are cut off, since a Newton search that ended elsewhere gives
            any z, and the flow cannot learn from it.
        num_layers: Spline layers of the second flow.
        width: Width of its hidden layers.
        depth: Number of its hidden layers.
    """

    shard_size: int = 4096
    min_steps: int = 2000
    patience: int = 12
    validation_share: float = 0.1
    max_validation: int = 4096
    max_z: float = 1e4
    num_layers: int = 2
    width: int = 128
    depth: int = 2


SETTINGS = SharpeningSettings()


def sharpen(
    guide: AmortizedGuide,
    data: Cohort | Design,
    *,
    num_simulations: int = CHOICE.usual_rows,
    budget: str | float | None = None,
    seed: int = 0,
    num_steps: int = 4,
    options: TrainingOptions = TrainingOptions(),
    progress: bool = True,
) -> AmortizedGuide:
    r"""Train a guide whose draws come from Newton steps on the model's own density.

    The steps and the distribution are those of :mod:`pyro_amortized.guide.newton_posterior`.

    For narrow posteriors, whose location a network reads only roughly: many observations, little
    noise, irregular times. Every use of the guide then costs some evaluations of the model per
    individual: about 90 with two parameters, 110 with three.

    Args:
        guide: A guide from :func:`~pyro_amortized.train`. One that is sharpened already gets a new
            second flow behind the same networks.
        data: Its cohort or design.
        num_simulations: Number of simulations that the second flow learns from, at most.
        budget: Wall time, in seconds or as ``"2min"``.
        seed: Seed of everything that is random.
        num_steps: Newton steps per individual.
        options: How to train the second flow (batch size, learning rate, threads).
        progress: Show progress bars on standard error.

    Returns:
        The sharpened guide; ``history.advice`` says how much the loss fell. If it did not fall,
        the guide without Newton steps.

    Raises:
        ModelError: The observations of the model have no density.
        TrainingError: An argument is of the wrong kind or outside its range.
    """
    begin, limit = time.monotonic(), budget_seconds(budget)
    check_guide(guide, TrainingError)
    check_count("num_simulations", num_simulations, least=100, error=TrainingError)
    check_count("num_steps", num_steps, error=TrainingError)
    first = _posterior_without_steps(guide)
    design = training_design(guide.structure, data)
    simulator = Simulator(guide.structure, design, guide.training_distribution, seed)
    weights = random_stream(seed, Purpose.SHARPENING_WEIGHTS)
    with torch_threads(options.num_threads), seeded(weights):
        flow = _second_flow(first)
        sharpened = SharpenedPosterior(
            first, flow, guide.structure, guide.training_distribution, num_steps
        )
        until = None if limit is None else begin + CHOICE.preparation_share * limit
        shards = _newton_shards(sharpened, simulator, num_simulations, until)
        total = -(-num_simulations // SETTINGS.shard_size)
        bar = progress_bar(progress, iterable=shards, total=total, desc="Newton steps", leave=False)
        rows = SharpeningRows(
            *(torch.cat(x) for x in zip(*(vars(p).values() for p in bar), strict=True))
        )
        deadline = None if limit is None else begin + limit
        history = _train_second(flow, rows, options, seed, deadline, progress)
    before = float(-rows.log_first[: rows.num_validation].mean())
    after = min(history.validation_loss)
    if not after < before:
        return _with(guide, first, "sharpening gained nothing")
    flow.double()
    advice = f"sharpened with {len(rows):,} simulations: from {before:.3f} to {after:.3f} nats"
    return _with(guide, sharpened, advice)


def _posterior_without_steps(guide: AmortizedGuide) -> AmortizedPosterior:
    """The networks of a guide that can be sharpened."""
    guide.structure.check_density()
    return guide.networks


@dataclass(frozen=True, eq=False)
class SharpeningRows:
    r"""The rows that the second flow is trained on.

    Args:
        context: Context of the second flow, shape ``(row, context)``.
        z: Standardized parameters, shape ``(row, latent)``.
        log_scale: Log determinant of L less the log share of the mode, shape ``(row,)``.
        log_first: Log density of the parameters under the first posterior, shape ``(row,)``.
    """

    context: Tensor
    z: Tensor
    log_scale: Tensor
    log_first: Tensor

    @classmethod
    def of(cls, distribution: SharpenedDistribution, values: Tensor) -> "SharpeningRows":
        """Those of the mode that each value ``(row, latent)`` belongs to: the one with the highest
        density there, by Student distributions around the modes.
        """
        modes = distribution.modes
        z = modes.standardized(values[modes.groups.rows].unsqueeze(0))[0]
        density = modes.groups.padded(log_tails(z) - modes.log_scale, -torch.inf)
        chosen = modes.groups.first + density.argmax(-1)
        z = z[chosen].clamp(-SETTINGS.max_z, SETTINGS.max_z).float()
        context, log_scale = modes.second.context[chosen].float(), modes.log_scale[chosen]
        return cls(context, z, log_scale, distribution.first.log_prob(values))

    def __len__(self) -> int:
        return len(self.z)

    @property
    def num_validation(self) -> int:
        """Number of rows, from the first on, that are kept for validation."""
        share = int(SETTINGS.validation_share * len(self))
        return max(1, min(SETTINGS.max_validation, share))

    def log_q(self, flow: nn.Module, rows: Tensor | slice) -> Tensor:
        """Log density of the mixture at some rows, without the other modes of an individual."""
        assert isinstance(flow, ConditionalFlow)
        log_flow = FlowDistribution(flow, self.context[rows]).log_prob(self.z[rows])
        log_z = log_with_tails(log_flow, self.z[rows])
        return log_mixture(log_z - self.log_scale[rows], self.log_first[rows])


def _with(
    guide: AmortizedGuide, posterior: AmortizedPosterior | SharpenedPosterior, advice: str
) -> AmortizedGuide:
    """The guide with other networks and another advice."""
    history = replace(guide.history, advice=advice)
    parts = (guide.training_distribution, history, guide.patterns)
    other = AmortizedGuide(guide.model, guide.structure, posterior, *parts)
    return other.at(guide.loc, guide.scale_tril)


def _second_flow(first: AmortizedPosterior) -> ConditionalFlow:
    d = first.flow.num_latent
    num_context = SharpenedPosterior.num_context(first, d)
    sizes = SETTINGS
    return ConditionalFlow(
        d,
        num_context,
        FlowSizes(num_layers=sizes.num_layers, width=sizes.width, depth=sizes.depth),
    )


@torch.no_grad()
def _newton_shards(
    posterior: SharpenedPosterior, simulator: Simulator, num: int, until: float | None
) -> Iterator[SharpeningRows]:
    """Simulations with their Newton steps, a shard at a time, until a time or all are made."""
    design, size = simulator.design, SETTINGS.shard_size
    for shard, start in enumerate(range(0, num, size)):
        if shard and until is not None and time.monotonic() > until:
            return
        simulations = simulator(shard, min(size, num - start))
        generator = random_stream(simulator.seed, Purpose.MISSING_VALUES, 0, shard)
        cohort = design.missing(simulations.cohort, generator)
        parts = (cohort, simulations.shared.double(), simulations.priors)
        distribution = posterior.condition(*parts, from_prior=False)
        yield SharpeningRows.of(distribution, simulations.unconstrained)


def _train_second(
    flow: ConditionalFlow,
    rows: SharpeningRows,
    options: TrainingOptions,
    seed: int,
    deadline: float | None,
    progress: bool,
) -> TrainingHistory:
    """Train the second flow. It gets the averaged weights with the best loss on new data; the
    untrained weights, which give a Gaussian around the mode, are among the candidates.
    """
    options = options.resolved(len(rows))
    size, num_passes = options.chosen
    validation, begin = slice(0, rows.num_validation), time.monotonic()
    steps_per_pass = max(1, (len(rows) - rows.num_validation) // size)
    total = max(SETTINGS.min_steps, num_passes * steps_per_pass)
    schedule = RateSchedule(options.peak_rate, options.warmup, None if deadline else total)
    optimizers = make_optimizers(flow, options)
    averaged = AveragedModel(flow, multi_avg_fn=average(options.average_decay))
    generator, step, done = random_stream(seed, Purpose.SHARPENING_ORDER), 0, 0.0
    best, losses = copy.deepcopy(flow.state_dict()), [_loss(flow, rows, validation)]
    with progress_bar(progress, total=100, desc="sharpening", unit="%") as bar:
        while done < 1.0 and losses.index(min(losses)) >= len(losses) - SETTINGS.patience:
            order = torch.randperm(len(rows) - rows.num_validation, generator=generator)
            for picked in (order + rows.num_validation).split(size)[:steps_per_pass]:
                share = 0.0
                if deadline is not None:
                    share = used_share(time.monotonic() - begin, deadline - begin)
                done = schedule.progress(step, share)
                if done >= 1.0:
                    break
                set_rate(optimizers, schedule.rate(step, done))
                (-rows.log_q(flow, picked).mean()).backward()
                take_step(optimizers, flow, averaged, options.max_gradient)
                step += 1
            bar.update(int(100 * done) - bar.n)
            losses.append(_loss(averaged.module, rows, validation))
            if losses[-1] <= min(losses):
                best = copy.deepcopy(averaged.module.state_dict())
    flow.load_state_dict(best)
    flow.requires_grad_(False)
    return TrainingHistory(validation_loss=losses, num_steps=step)


@torch.no_grad()
def _loss(flow: nn.Module, rows: SharpeningRows, picked: slice) -> float:
    return -float(rows.log_q(flow, picked).mean())
