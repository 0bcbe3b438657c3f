r"""Simulation-based calibration of a trained guide.

Individuals are simulated from the training distribution, :math:`\phi \sim \tilde p(\phi)`,
:math:`y \sim p(y \mid \phi, c)`. If :math:`p(\phi \mid y, c)` is right, the rank of the true value
among posterior draws is uniform, and a central 90 % interval contains it in 90 % of the cases, for
every parameter. Both are computed for the guide as it is (*raw*) and for its draws corrected by the
density of the model.

Uniform ranks do not prove that a posterior is right: the training distribution itself gives uniform
ranks. The benchmarks compare the marginal likelihood with quadrature for this reason.

References:
    Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian inference algorithms
    with simulation-based calibration.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...cohort import Cohort, Design
from ...errors import SettingError
from ...guide import AmortizedGuide
from ...guide.amortized_posterior import AmortizedPosterior
from ...guide.newton_posterior import SharpenedPosterior
from ...guide.training_distributions import TrainingDistribution
from ...missing import Remaskable
from ...model import ModelStructure
from ...model.individual_priors import individual_priors_at
from ...numerics.gaussians import Gaussians
from ...runtime.arguments import check_count, check_is
from ...runtime.progress import counting_steps, showing_progress
from ...runtime.random_numbers import fork_seed, make_generator
from ...runtime.workers import run_each
from ...sampling.adaptive_importance import sample_targets
from ...sampling.importance_weights import (
    effective_sample_size,
    finite_or_zero_weight,
    importance_estimate,
    normalized_weights,
    resample,
    weighted_moments,
)
from ...sampling.individuals import MIN_DRAWS
from ...sampling.proposals import FlowProposal
from ...sampling.sampler import Sampler
from ...training.training_design import training_design
from .calibration_result import Calibration


@dataclass(frozen=True)
class CalibrationSettings:
    r"""How the work of a calibration is divided.

    Args:
        block_size: Individuals that are simulated and sampled together. A block has a seed of its
            own, so the number is part of the result; it also limits the memory of one worker.
        num_populations: Populations that are drawn from the prior of the model.
        draws_per_call: Draws whose observation density is computed in one call of the model, which
            limits memory.
    """

    block_size: int = 100
    draws_per_call: int = 100
    num_populations: int = 200


DEFAULTS = CalibrationSettings()


@dataclass(frozen=True)
class _CalibrationBlock:
    """What a worker needs to calibrate some individuals."""

    posterior: AmortizedPosterior | SharpenedPosterior
    structure: ModelStructure
    training: TrainingDistribution
    populations: Tensor | None
    design: Remaskable
    num_individuals: int
    num_draws: int
    num_ranks: int
    seed: int


@dataclass(frozen=True)
class _Simulated:
    """Simulated individuals and their true parameters.

    Args:
        cohort: The data.
        truth: Unconstrained individual parameters, shape ``(individual, parameter)``.
        shared: Unconstrained shared parameters, shape ``(individual, shared parameter)``.
        priors: Distributions that the true parameters were drawn from.
    """

    cohort: Cohort
    truth: Tensor
    shared: Tensor
    priors: Gaussians


def calibrate(
    guide: AmortizedGuide,
    design: Cohort | Design,
    *,
    num_individuals: int = 500,
    num_draws: int = 2000,
    num_ranks: int = 99,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    r"""Simulate individuals, sample their posteriors, and rank the true values among the draws.

    The population of each individual is drawn from the prior of the model.

    Args:
        guide: The trained guide.
        design: Source of times, doses, covariates and missingness, for instance
            ``Resample(cohort, RandomMissing(0.3, 0.3))``; or a cohort, as for training.
        num_individuals: Number of simulated individuals. Individuals whose simulation is not finite
            are left out.
        num_draws: Weighted draws per individual. Equally weighted draws that are resampled from few
            effective ones are too narrow, which the ranks of thousands of individuals show; more
            draws reduce this error.
        num_ranks: Number of draws among which the true value is ranked.
        seed: Seed of all random numbers. Blocks of 100 individuals have seeds of their own; under
            ``joblib.parallel_config`` the blocks run in parallel, with the same result.
        progress: Show a progress bar of the blocks on standard error.

    Raises:
        SettingError: ``guide`` is not a guide, or a number is outside its range.
    """
    check_is("guide", guide, AmortizedGuide, "pass a trained or loaded guide.", SettingError)
    check_count("num_individuals", num_individuals)
    check_count("num_draws", num_draws, least=MIN_DRAWS)
    check_count("num_ranks", num_ranks, most=num_draws)
    generator, size = make_generator(seed), DEFAULTS.block_size
    populations = _draw_populations(guide, design, generator)
    blocks = [
        _CalibrationBlock(
            guide.posterior,
            guide.structure,
            guide.training_distribution,
            populations,
            training_design(guide.structure, design),
            min(size, num_individuals - start),
            num_draws,
            num_ranks,
            fork_seed(generator),
        )
        for start in range(0, num_individuals, size)
    ]
    with showing_progress(progress), counting_steps("calibration", len(blocks), "block"):
        parts = run_each(_calibrate_block, [(block,) for block in blocks])
    fields, covariates = (
        {name: torch.cat([part[name] for part in group]) for name in group[0]}
        for group in zip(*parts, strict=True)
    )
    names = guide.structure.latent_names
    return Calibration(names=names, num_ranks=num_ranks, covariates=covariates, **fields)


def _calibrate_block(block: _CalibrationBlock) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results of some individuals by field of :class:`Calibration`, and their covariates."""
    generator = make_generator(block.seed)
    simulated = _simulate(block, generator)
    cohort, individual = simulated.cohort, block.training.individual
    posterior = block.posterior.condition(cohort, simulated.shared, simulated.priors)
    proposal = FlowProposal(posterior.take)
    with torch.no_grad():
        raw, log_proposal = proposal.draw(block.num_draws, torch.arange(len(cohort)), generator)
    reference = individual.draw_with(cohort, simulated.priors, 1, generator)[0]
    results = _raw_results(block, simulated.truth, raw, reference)
    results |= _numbers_of_values(block.structure, cohort)
    covariates = dict(cohort.covariates)
    if block.structure.has_density:
        draws = (raw, log_proposal)
        corrected = _corrected_results(block, simulated, proposal, draws, reference, generator)
        return results | corrected, covariates
    not_known = torch.full((len(cohort),), torch.nan, dtype=torch.float64)
    uncorrected = {
        "ranks": results["raw_ranks"],
        "levels": results["raw_levels"],
        "tarp": results["raw_tarp"],
        "means": raw.mean(0),
        "sds": raw.std(0),
        "ess": not_known,
        "pareto_k": not_known,
        "raw_efficiency": not_known,
    }
    return results | uncorrected, covariates


def _raw_results(
    block: _CalibrationBlock, truth: Tensor, raw: Tensor, reference: Tensor
) -> dict[str, Tensor]:
    """Results of the guide's own draws, shape ``(draw, individual, parameter)``."""
    equal_weights = torch.full(raw.shape[:2], 1 / block.num_draws, dtype=torch.float64)
    return {
        "raw_ranks": (raw[: block.num_ranks] < truth).sum(0),
        "raw_levels": (raw < truth).double().mean(0),
        "truth": truth,
        "raw_tarp": _probability_nearer(raw, equal_weights, truth, reference),
    }


def _corrected_results(
    block: _CalibrationBlock,
    simulated: _Simulated,
    proposal: FlowProposal,
    raw_draws: tuple[Tensor, Tensor],
    reference: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Results of draws that are weighted by the density of the model, and the effective share of
    the guide's own draws.

    Args:
        block: Settings of the block.
        simulated: The individuals.
        proposal: The guide, given their data.
        raw_draws: Draws of the guide and their log density.
        reference: Other points of the distributions of the true parameters, for the joint test.
        generator: Source of random numbers.
    """
    sampler = _sampler(block, simulated, proposal)
    num, truth = len(simulated.cohort), simulated.truth
    raw, log_proposal = raw_draws
    with torch.no_grad():
        log_ratio = sampler.target(raw, torch.arange(num)) - log_proposal
        raw_ess = effective_sample_size(finite_or_zero_weight(log_ratio))
        weighted, _ = sample_targets(sampler, block.num_draws, num, generator, refine=True)
    draws, weights = weighted.draws, normalized_weights(weighted.log_weights)
    picked = resample(weights, block.num_ranks, generator)
    picked = picked.unsqueeze(-1).expand(-1, -1, truth.shape[1])
    estimate = importance_estimate(weighted.log_weights)
    means, sds, *_ = weighted_moments(draws, weights)
    return {
        "raw_efficiency": raw_ess / block.num_draws,
        "tarp": _probability_nearer(draws, weights, truth, reference),
        "means": means,
        "sds": sds,
        "ranks": (draws.gather(0, picked) < truth).sum(0),
        "levels": (weights.unsqueeze(-1) * (draws < truth)).sum(0),
        "ess": estimate.ess,
        "pareto_k": estimate.pareto_k,
    }


def _sampler(block: _CalibrationBlock, simulated: _Simulated, proposal: FlowProposal) -> Sampler:
    """Importance sampling with the density of the data times that of the training distribution,
    from which the true values come, as the target.
    """
    structure, training = block.structure, block.training.individual
    cohort, priors = simulated.cohort, simulated.priors

    def log_target(draws: Tensor, rows: Tensor) -> Tensor:
        log_observation = [
            structure.log_observation(cohort[rows], part, simulated.shared[rows])
            for part in draws.split(DEFAULTS.draws_per_call)
        ]
        return torch.cat(log_observation) + log_training(draws, rows)

    def draw_training(num: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        return training.draw_with(cohort[rows], priors.take(rows), num, generator)

    def log_training(draws: Tensor, rows: Tensor) -> Tensor:
        return training.log_prob(cohort[rows], priors.take(rows), draws)

    return Sampler(log_target, draw_training, log_training, proposal)


def _probability_nearer(draws: Tensor, weights: Tensor, truth: Tensor, reference: Tensor) -> Tensor:
    """Posterior probability of being nearer to a reference point than the true value is, shape
    ``(individual,)``; each coordinate is divided by the standard deviation of the true values.
    """
    unit = truth.std(0).clamp(min=1e-12) if len(truth) > 1 else torch.ones_like(truth[0])
    distance = ((draws - reference) / unit).norm(dim=-1)
    return (weights * (distance < ((truth - reference) / unit).norm(dim=-1))).sum(0)


def _numbers_of_values(structure: ModelStructure, cohort: Cohort) -> dict[str, Tensor]:
    """Number of recorded values and share of missing ones of each individual."""
    recorded = sum(cohort[n].observed.flatten(1).sum(1) for n in structure.series)
    scheduled = sum(cohort[n].observed[0].numel() for n in structure.series)
    num_recorded = torch.as_tensor(recorded)
    return {
        "num_recorded": num_recorded,
        "share_missing": 1 - num_recorded.double() / scheduled,
    }


def _draw_populations(
    guide: AmortizedGuide, design: Cohort | Design, generator: torch.Generator
) -> Tensor | None:
    """Populations from the prior of the model, unconstrained, shape ``(population, coordinate)``;
    None where the guide knows one distribution of the individuals only.
    """
    if guide.training_distribution.individual.populations is None:
        return None
    structure, num = guide.structure, DEFAULTS.num_populations
    plan = training_design(guide.structure, design).complete(1, generator)
    draws = structure.draw_populations(plan, num, generator)
    vectors = torch.stack([structure.unconstrain_population(x) for x in draws])
    return vectors[vectors.isfinite().all(-1)]


def _priors(block: _CalibrationBlock, plan: Cohort, generator: torch.Generator) -> Gaussians:
    """The distribution of each individual, under a population of its own from the prior."""
    num = block.num_individuals
    if block.populations is None:
        return block.training.individual.gaussians(num, generator)
    picked = torch.randint(len(block.populations), (num,), generator=generator)
    used, index = picked.unique(return_inverse=True)
    priors = individual_priors_at(block.structure, plan, block.populations[used])
    return priors.map(lambda x: x[index, torch.arange(num)])


def _simulate(block: _CalibrationBlock, generator: torch.Generator) -> _Simulated:
    """Simulated individuals with their recorded values."""
    design, structure, training = block.design, block.structure, block.training
    plan = design.complete(block.num_individuals, generator)
    priors = _priors(block, plan, generator)
    truth = training.individual.draw_with(plan, priors, 1, generator)[0]
    shared = training.shared.draw(block.num_individuals, generator)
    cohort, failed = structure.simulate(
        plan, truth, shared, structure.initial_population(), generator
    )
    finite_rows = (~failed).nonzero()[:, 0]
    # Whether a value is missing may depend on the values: missingness follows the simulation.
    cohort = design.missing(cohort[finite_rows], generator)
    return _Simulated(cohort, truth[finite_rows], shared[finite_rows], priors.take(finite_rows))
