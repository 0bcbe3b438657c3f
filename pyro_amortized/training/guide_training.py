r"""Training of a guide: read the model, simulate, build the networks, train them.

The training minimises the mean of :math:`-\log q(u \mid y, c)` over simulations of the model,
see :mod:`pyro_amortized.training.objective`.
"""

import copy
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from torch import Generator

from ..cohort import Cohort, Design
from ..cohort.time_grid import common_grid, time_windows
from ..encode import Form
from ..errors import TrainingError
from ..guide import AmortizedGuide
from ..guide.amortized_posterior import AmortizedPosterior
from ..guide.default_distribution import default_training_distribution
from ..guide.training_distributions import TrainingDistribution
from ..guide.training_history import TrainingHistory
from ..missing.training_patterns import TrainingPatterns
from ..model import Model, ModelStructure, read_structure
from ..runtime.isolation import seeded, torch_threads
from ..runtime.random_numbers import make_generator
from . import newton_training
from .batches import Feed
from .distributed_training import local_device, rank
from .loss_tracking import Tracker
from .network_options import Networks
from .options import TrainingOptions
from .sharpening_choice import is_sharpened, networks_limit
from .simulation.failure_checks import announce_layout, check_failures
from .simulation.random_streams import VALIDATION, Purpose, random_stream
from .simulation.shard_queue import SimulationBank
from .simulation.shard_simulation import SIZES, Simulator
from .simulation.training_sets import TrainingSet
from .simulation_plan import Plan, open_bank
from .time_budgets import budget_seconds
from .training_advice import advice
from .training_design import training_design
from .training_loop import Run
from .training_request import check_kinds, check_request, example_of


def train(
    model: Model,
    data: Cohort | Design,
    *,
    num_simulations: int | None = None,
    budget: str | float | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    options: TrainingOptions = TrainingOptions(),
    networks: Networks = Networks(),
    training_distribution: TrainingDistribution | None = None,
    warm_start: AmortizedGuide | None = None,
    sharpen: bool | None = None,
    tracker: Tracker | None = None,
    progress: bool = True,
) -> AmortizedGuide:
    r"""Train an amortized guide for a mixed-effects model.

    Args:
        model: The Pyro model, a function of a cohort.
        data: A cohort, whose individuals (times, doses, covariates) are resampled with extra random
            missingness, if the program has masks for values that were not recorded; or a design of
            your own, ``(num_individuals, generator) -> Cohort``.
        num_simulations: Number of simulated individuals. Default: 300,000; under a time budget, as
            many as can be made beside the training.
        budget: Wall time for everything, in seconds or as ``"30s"``, ``"5min"``, ``"1h"``: the
            learning rate reaches zero when it is used up. Such a run depends on the speed of the
            machine; without a budget, a seed determines the weights.
        seed: Seed of everything that is random: simulation, initial weights, order of the batches.
        folder: Where simulations and checkpoints are kept. A run that was killed continues from
            there when ``train`` is called with the same arguments, and ends with the weights of an
            uninterrupted one. Default: memory (or a temporary folder, if memory is too small).
        options: How to train.
        networks: Sizes of the networks.
        training_distribution: Distribution of individual and shared parameters, for instance
            ``TrainingDistribution.normal(loc, scale_tril)``. Default: see
            :func:`~pyro_amortized.guide.default_distribution.default_training_distribution`.
        warm_start: A guide of a model with the same sites and series, whose networks are trained
            further; ``networks`` is then ignored.
        sharpen: Follow the networks by Newton steps on the density of the model, as
            :func:`~pyro_amortized.sharpen` does; it gets three quarters of a budget. Default: if
            the model has a density that is evaluated fast enough
            (:mod:`pyro_amortized.training.sharpening_choice`), the budget is not less than 20 s,
            and there is no ``num_simulations``, folder or warm start.
        tracker: Records the losses: ``mlflow``, or an object with ``log_params`` and
            ``log_metric``.
        progress: Show progress bars on standard error.

    Returns:
        The guide; ``guide.history`` holds the losses, and what would improve the result.

    Raises:
        ModelError: The model is not a mixed-effects model that the library can read, or has no
            density and ``sharpen=True``.
        TrainingError: Too few simulations, too many of them not finite, a folder that holds
            another run, or a warm start from a guide of other sites.
    """
    begin, limit = time.monotonic(), budget_seconds(budget)
    check_request(model, num_simulations, seed, sharpen)
    check_kinds(options, networks, training_distribution, warm_start, tracker)
    generator = make_generator(seed)
    example = data if isinstance(data, Cohort) else example_of(data, generator)
    structure = read_structure(model, example)
    distribution = training_distribution or default_training_distribution(
        structure, example, generator
    )
    announce_layout(structure, example, SIZES.loop)
    warm = None if warm_start is None else _networks_of(warm_start, structure)
    networks, distribution = _with_shared(networks, distribution, structure, warm)
    plan = Plan(
        simulator=_simulator(structure, data, distribution, seed, options),
        options=options,
        networks=networks,
        num_simulations=num_simulations,
        begin=begin,
        limit=limit,
        folder=None if folder is None else Path(folder),
        progress=progress,
        warm_start=warm,
    )
    return _trained(plan, model, data, generator, tracker, sharpen)


def _simulator(
    structure: ModelStructure,
    data: Cohort | Design,
    distribution: TrainingDistribution,
    seed: int,
    options: TrainingOptions,
) -> Simulator:
    """What makes the simulations."""
    design = training_design(structure, data)
    return Simulator(structure, design, distribution, seed, options.num_noise)


def _trained(
    plan: Plan,
    model: Model,
    data: Cohort | Design,
    generator: Generator,
    tracker: Tracker | None,
    sharpen: bool | None,
) -> AmortizedGuide:
    """The guide, with Newton steps where the user wants them or does not say so and they pay."""
    if sharpen:
        plan.simulator.structure.check_density()
    if not (is_sharpened(plan) if sharpen is None else sharpen):
        return _guide(plan, model, generator, tracker)
    networks_alone = replace(plan, limit=networks_limit(plan.limit))
    return _sharpened(_guide(networks_alone, model, generator, tracker), data, plan)


def _guide(
    plan: Plan, model: Model, generator: Generator, tracker: Tracker | None
) -> AmortizedGuide:
    """A guide of networks alone."""
    posterior, patterns, history = _train(plan, generator, tracker)
    structure, distribution = plan.simulator.structure, plan.simulator.distribution
    return AmortizedGuide(model, structure, posterior, distribution, history, patterns)


def _sharpened(guide: AmortizedGuide, data: Cohort | Design, plan: Plan) -> AmortizedGuide:
    """A trained guide with Newton steps, in what the networks have left of a budget."""
    left = None if plan.deadline is None else max(1.0, plan.deadline - time.monotonic())
    options = TrainingOptions(num_threads=plan.options.num_threads)
    seed, progress = plan.simulator.seed, plan.progress
    return newton_training.sharpen(
        guide, data, budget=left, seed=seed, options=options, progress=progress
    )


def _train(
    plan: Plan, generator: Generator, tracker: Tracker | None
) -> tuple[AmortizedPosterior, TrainingPatterns, TrainingHistory]:
    """Simulate, build the networks and train them."""
    with ExitStack() as stack:
        stack.enter_context(torch_threads(plan.options.num_threads))
        bank, validation = open_bank(plan, stack)
        posterior, patterns = _build(plan, bank, generator)
        history = _fit(plan, posterior, bank, validation, tracker)
    return posterior.cpu().double(), patterns, history


def _with_shared(
    networks: Networks,
    distribution: TrainingDistribution,
    structure: ModelStructure,
    warm_start: AmortizedPosterior | None,
) -> tuple[Networks, TrainingDistribution]:
    """Networks that learn the shared parameters or not, and their training distribution.

    They are learned as by the networks of a warm start, as the user says, or where the observations
    have no density.
    """
    if warm_start is not None:
        learn_shared = warm_start.shared_flow is not None
    elif networks.learn_shared is not None:
        learn_shared = networks.learn_shared
    else:
        learn_shared = bool(structure.shared) and not structure.has_density
    if learn_shared:
        distribution = replace(distribution, shared=distribution.shared.as_normal())
    return replace(networks, learn_shared=learn_shared), distribution


def _networks_of(guide: AmortizedGuide, structure: ModelStructure) -> AmortizedPosterior:
    """The networks of a guide whose sites and series are those of a model."""
    present, expected = (
        (s.latent_names, s.shared, list(s.series)) for s in (guide.structure, structure)
    )
    if present != expected:
        raise TrainingError(
            f"A warm start from a guide of {present[0]}, {present[1]}, {present[2]} (individual "
            "parameters, shared parameters, series).",
            f"a guide of {expected[0]}, {expected[1]}, {expected[2]}, as the model has them.",
            "train without `warm_start=`.",
        )
    return guide.networks


def _build(
    plan: Plan, bank: SimulationBank, generator: Generator
) -> tuple[AmortizedPosterior, TrainingPatterns]:
    """Networks before training, with the scales of the first shard, and the patterns of its missing
    values.
    """
    simulator = plan.simulator
    structure, first = simulator.structure, bank.get(0)
    numbers = random_stream(simulator.seed, Purpose.NETWORK_FORM)
    masked = simulator.design.missing(first.cohort, numbers)
    grid = _grid(plan, first.cohort)
    patterns = TrainingPatterns.of(masked, structure.series, grid)
    device = local_device(plan.options.device)
    if plan.warm_start is not None:
        warm = copy.deepcopy(plan.warm_start).requires_grad_(True)
        for network in (warm.summary, warm.flow, warm.shared_flow, warm.prior_features):
            if network is not None:
                network.float()
        return warm.to(device), patterns
    windows = None
    if grid is None and plan.networks.reads_windows:
        windows = time_windows(first.cohort, structure.series)
    with seeded(generator):
        form = Form.of(masked, structure.series, grid, windows)
        encoder = plan.networks.encoding.encoder(form).fit(masked)
        sizes = (first.unconstrained.shape[1], first.shared.shape[1])
        for_populations = simulator.distribution.individual.populations is not None
        posterior = plan.networks.build(encoder, *sizes, for_populations)
    _take_scales(posterior, first, simulator.distribution)
    return posterior.to(device), patterns


def _grid(plan: Plan, cohort: Cohort) -> dict[str, list[float]] | None:
    """The common time grid of the individuals, or None.

    Raises:
        TrainingError: The user asks for a grid, and there is none.
    """
    if plan.networks.grid is False:
        return None
    grid = common_grid(cohort, plan.simulator.structure.series)
    if grid is None and plan.networks.grid:
        raise TrainingError(
            "The individuals of the design do not share their times.",
            "one increasing time grid for all individuals, as `networks.grid=True` asks for.",
            "leave `grid` at None.",
        )
    return grid


def _take_scales(
    posterior: AmortizedPosterior, first: TrainingSet, distribution: TrainingDistribution
) -> None:
    """Take the scales of the networks from the training distribution."""
    individual, shared = distribution.individual, distribution.shared
    posterior.flow.loc.copy_(individual.normal.loc)
    posterior.flow.scale_tril.copy_(individual.normal.scale_tril)
    if posterior.prior_features is not None and individual.populations is not None:
        posterior.prior_features.fit(individual.populations)
        assert posterior.flow.information is not None
        posterior.flow.information.center.copy_(individual.populations.location.loc)
        posterior.flow.information.unit.copy_(individual.populations.largest)
    posterior.shared.fit(first.shared.double())
    if posterior.shared_flow is not None:
        assert shared.normal is not None
        posterior.shared_flow.loc.copy_(shared.normal.loc)
        posterior.shared_flow.scale_tril.copy_(shared.normal.scale_tril)


def _fit(
    plan: Plan,
    posterior: AmortizedPosterior,
    bank: SimulationBank,
    validation: TrainingSet,
    tracker: Tracker | None,
) -> TrainingHistory:
    options = plan.resolved_options(bank)
    feed = Feed(bank, copy.deepcopy(posterior.encoder).cpu(), plan.simulator.seed)
    run = Run(
        posterior,
        feed,
        feed.pairs(validation, 0, VALIDATION).to(posterior.flow.loc.device),
        options,
        deadline=plan.deadline,
        checkpoint=None if plan.folder is None else plan.folder / "checkpoint.safetensors",
        tracker=tracker,
    )
    if tracker is not None and rank() == 0:
        tracker.log_params(asdict(options) | plan.networks.description | {"seed": feed.seed})
    run.run(plan.progress and rank() == 0)
    num_failed = sum(bank.num_failed.values())
    num = len(bank.num_failed) * bank.shard_size if bank.num_shards is None else bank.total
    seen = feed.pairs(bank.get(0), 0, 0).to(run.device)
    check_failures(num_failed, max(num, 1))
    return run.history(
        num_simulations=num + len(validation) // plan.options.num_noise,
        num_failed=num_failed + validation.num_failed,
        simulation_seconds=bank.simulation_seconds,
        advice=advice(run.progress, posterior, seen, run.validation),
    )
