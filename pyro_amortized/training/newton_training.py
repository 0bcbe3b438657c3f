r"""From a trained guide to one that the model's own density sharpens."""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..cohort import Cohort, Design
from ..errors import GuideError, TrainingError
from ..guide import AmortizedGuide
from ..guide.amortized_posterior import AmortizedPosterior
from ..guide.newton_posterior import SharpenedPosterior, mixed
from ..guide.training_history import TrainingHistory
from ..missing.designs import as_design
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution
from ..runtime.arguments import check_count, check_is
from ..runtime.isolation import seeded, torch_threads
from ..runtime.progress import progress_bar
from .learning_rate import Schedule
from .optimizers import average, make_optimizers, set_rate, take_step
from .options import TrainingOptions, seconds
from .simulation.shard_simulation import Simulator, shard_generator

SHARD_SIZE = 4096
SHARE_OF_TIME = 0.6  # of a budget, for simulation and Newton steps
MIN_STEPS = 2000
PATIENCE = 12  # passes without a better loss on new data


def sharpen(
    guide: AmortizedGuide,
    data: Cohort | Design,
    *,
    num_simulations: int = 50_000,
    budget: str | float | None = None,
    seed: int = 0,
    num_steps: int = 4,
    options: TrainingOptions = TrainingOptions(),
    progress: bool = True,
) -> AmortizedGuide:
    r"""Let the model's own density sharpen a trained guide, see
    :mod:`pyro_amortized.guide.newton_posterior`.

    For narrow posteriors, whose location a network reads only roughly: many observations, little
    noise, irregular times. Every use of the guide then costs some evaluations of the model per
    individual: about 90 with two parameters, 110 with three.

    Args:
        guide: A guide from :func:`~pyro_amortized.train`.
        data: Its cohort or design.
        num_simulations: Number of simulations that the second flow learns from, at most.
        budget: Wall time, in seconds or as ``"2min"``.
        seed: Seed of everything that is random.
        num_steps: Newton steps per individual.
        options: How to train the second flow (batch size, learning rate, threads).
        progress: Show progress bars on standard error.

    Returns:
        The sharpened guide; ``history.advice`` says what was gained. If nothing was, the guide as
        it was.

    Raises:
        GuideError: The guide is sharpened already, or its observations have no density.
    """
    begin, limit = time.monotonic(), seconds(budget)
    fix = "load it first, `load_guide(path, model, cohort)`."
    check_is("guide", guide, AmortizedGuide, fix, TrainingError)
    check_count("num_simulations", num_simulations, least=100, error=TrainingError)
    check_count("num_steps", num_steps, error=TrainingError)
    first = guide.posterior
    if not isinstance(first, AmortizedPosterior):
        raise GuideError(
            "The guide is sharpened already.", "a guide from `train`.", "use it as it is."
        )
    guide.structure.check_density()
    simulator = Simulator(guide.structure, as_design(data), guide.training_distribution, seed)
    with torch_threads(options.num_threads), seeded(shard_generator(seed, 6)):
        flow = _second_flow(first)
        whole = SharpenedPosterior(
            first, flow, guide.structure, guide.training_distribution, num_steps
        )
        until = None if limit is None else begin + SHARE_OF_TIME * limit
        shards = _prepared(whole, simulator, num_simulations, until)
        total = -(-num_simulations // SHARD_SIZE)
        bar = progress_bar(progress, iterable=shards, total=total, desc="Newton steps", leave=False)
        rows = Rows(*(torch.cat(x) for x in zip(*(vars(p).values() for p in bar), strict=True)))
        deadline = None if limit is None else begin + limit
        history = _train_second(flow, rows, options, seed, deadline, progress)
    before, after = (
        float(-rows.log_first[: rows.num_validation].mean()),
        min(history.validation_loss),
    )
    said = f"sharpened with {len(rows):,} simulations: from {before:.3f} to {after:.3f} nats"
    if not after < before:
        return _with(guide, first, replace(guide.history, advice="sharpening gained nothing"))
    flow.double()
    return _with(guide, whole, replace(guide.history, advice=said))


@dataclass(frozen=True, eq=False)
class Rows:
    """What the second flow learns from: context, z, log |L|, and log q of the first answer."""

    context: Tensor
    z: Tensor
    log_det: Tensor
    log_first: Tensor

    def __len__(self) -> int:
        return len(self.z)

    @property
    def num_validation(self) -> int:
        """Rows at the beginning that are kept for validation."""
        return max(1, min(4096, len(self) // 10))

    def log_q(self, flow: nn.Module, rows: Tensor | slice) -> Tensor:
        """Log density of the mixture at some rows."""
        assert isinstance(flow, ConditionalFlow)
        sharp = FlowDistribution(flow, self.context[rows]).log_prob(self.z[rows])
        return mixed(sharp - self.log_det[rows], self.log_first[rows])


def _with(
    guide: AmortizedGuide,
    posterior: AmortizedPosterior | SharpenedPosterior,
    history: TrainingHistory,
) -> AmortizedGuide:
    known = (guide.training_distribution, history, guide.patterns)
    made = AmortizedGuide(guide.model, guide.structure, posterior, *known)
    return made.at(guide.loc, guide.scale_tril)


def _second_flow(first: AmortizedPosterior) -> ConditionalFlow:
    d = first.flow.num_latent
    width = SharpenedPosterior.num_context(first, d)
    return ConditionalFlow(d, width, num_layers=2, width=128, depth=2)


@torch.no_grad()
def _prepared(
    whole: SharpenedPosterior, simulator: Simulator, num: int, until: float | None
) -> Iterator[Rows]:
    """Simulations with their Newton steps, a shard at a time."""
    design = simulator.design
    for shard, start in enumerate(range(0, num, SHARD_SIZE)):
        if shard and until is not None and time.monotonic() > until:
            return
        found = simulator(shard, min(SHARD_SIZE, num - start))
        cohort = design.missing(found.cohort, shard_generator(simulator.seed, 1, 0, shard))
        law = whole.condition(cohort, found.shared.double())
        z, log_det = law.standardized(found.unconstrained)
        log_first = law.first.log_prob(found.unconstrained)
        yield Rows(law.second.context.float(), z.clamp(-1e4, 1e4).float(), log_det, log_first)


def _train_second(
    flow: ConditionalFlow,
    rows: Rows,
    options: TrainingOptions,
    seed: int,
    deadline: float | None,
    progress: bool,
) -> TrainingHistory:
    """Train the second flow; it ends with the averaged weights that were best on new data, the
    untrained ones (a Gaussian around the mode) among them.
    """
    options = options.resolved(len(rows))
    size, num_passes = options.chosen
    new, begin = slice(0, rows.num_validation), time.monotonic()
    per_pass = max(1, (len(rows) - rows.num_validation) // size)
    total = max(MIN_STEPS, num_passes * per_pass)
    schedule = Schedule(options.learning_rate, options.warmup, None if deadline else total)
    optimizers = make_optimizers(flow, options)
    averaged = AveragedModel(flow, multi_avg_fn=average(options.average_decay))
    generator, step, done = shard_generator(seed, 7), 0, 0.0
    best, losses = copy.deepcopy(flow.state_dict()), [_loss(flow, rows, new)]
    with progress_bar(progress, total=100, desc="sharpening", unit="%") as bar:
        while done < 1.0 and losses.index(min(losses)) >= len(losses) - PATIENCE:
            order = torch.randperm(len(rows) - rows.num_validation, generator=generator)
            for picked in (order + rows.num_validation).split(size)[:per_pass]:
                share = 0.0
                if deadline is not None:
                    share = min(1.0, (time.monotonic() - begin) / max(deadline - begin, 1e-9))
                done = schedule.progress(step, share)
                if done >= 1.0:
                    break
                set_rate(optimizers, schedule.rate(step, done))
                (-rows.log_q(flow, picked).mean()).backward()
                take_step(optimizers, flow, averaged, options.max_gradient)
                step += 1
            bar.update(int(100 * done) - bar.n)
            losses.append(_loss(averaged.module, rows, new))
            if losses[-1] <= min(losses):
                best = copy.deepcopy(averaged.module.state_dict())
    flow.load_state_dict(best)
    flow.requires_grad_(False)
    return TrainingHistory(validation_loss=losses, num_steps=step)


@torch.no_grad()
def _loss(flow: nn.Module, rows: Rows, picked: slice) -> float:
    return -float(rows.log_q(flow, picked).mean())
