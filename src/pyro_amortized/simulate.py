r"""Training data from the user's own program.

Individual parameters are drawn from a training distribution :math:`\tilde p(\phi)`, shared
parameters c from their prior, observations from the program itself, over a design of times, doses,
covariates and missingness:

.. math:: u \sim \mathcal N(m, S S^\top), \qquad c \sim p(c), \qquad y \sim p(y \mid \phi(u), c).

By default m and S are the moments of the individual parameters under the prior predictive, in
unconstrained coordinates, inflated: wide enough for whatever population the data may ask for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from .cohort import Cohort, Design, end_to_end
from .errors import TrainingError, warn_user
from .factor import factored
from .isolation import make_generator
from .missing import Remaskable
from .structure import ModelStructure

CALL_SIZE = 16_384
LOOP_SIZE = 128


@dataclass(frozen=True, eq=False)
class TrainingDistribution:
    r"""What individual and shared parameters are drawn from when the network is trained.

    Args:
        loc: Mean m of the individual parameters in unconstrained coordinates, shape ``(latent,)``.
        scale_tril: Lower triangular S, shape ``(latent, latent)``.
        shared: Draws of the shared parameters in unconstrained coordinates, shape ``(draw,
            shared)``; training picks among them.
        shared_law: Mean and lower triangular scale of the normal distribution that shared
            parameters are drawn from in place of ``shared``; their density is then known.
        prior: A program without population parameters, whose own distribution of the individual
            parameters is drawn from in place of the normal one; m and S then only set the scale of
            the networks.

    Raises:
        TrainingError: Shapes disagree or a value is not finite.
    """

    loc: Tensor
    scale_tril: Tensor
    shared: Tensor
    prior: ModelStructure | None = None
    shared_law: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        d = len(self.loc)
        finite = all(bool(x.isfinite().all()) for x in (self.loc, self.scale_tril, self.shared))
        if self.scale_tril.shape != (d, d) or self.shared.dim() != 2 or not finite:
            raise TrainingError(
                f"A training distribution of shapes {tuple(self.loc.shape)}, "
                f"{tuple(self.scale_tril.shape)}, "
                f"{tuple(self.shared.shape)}{'' if finite else ', some values not finite'}.",
                "(latent,), (latent, latent), (draw, shared), all finite.",
                "narrow the priors of the population, or pass `training_distribution=` yourself.",
            )

    def draw(self, num_draws: int, generator: Generator) -> Tensor:
        """Individual parameters, shape ``(draw, latent)``."""
        return _normal_draws(self.loc, self.scale_tril, num_draws, generator)

    def draw_for(self, cohort: Cohort, num_draws: int, generator: Generator) -> Tensor:
        """Individual parameters for the individuals of a cohort, shape ``(draw, individual,
        latent)``.
        """
        if self.prior is not None:
            return self.prior.draw_individuals(cohort, {}, num_draws, generator)
        num = len(cohort)
        return self.draw(num_draws * num, generator).reshape(num_draws, num, -1)

    def log_prob_for(self, cohort: Cohort, unconstrained: Tensor) -> Tensor:
        """Log density of what :meth:`draw_for` draws, shape ``(draw, individual)``."""
        if self.prior is not None:
            return self.prior.log_individual(cohort, unconstrained, {})
        return self.log_prob(unconstrained)

    def draw_shared(self, num_draws: int, generator: Generator) -> Tensor:
        """Shared parameters, shape ``(draw, shared)``."""
        if self.shared_law is not None:
            return _normal_draws(*self.shared_law, num_draws, generator)
        return self.shared[torch.randint(len(self.shared), (num_draws,), generator=generator)]

    def log_prob(self, unconstrained: Tensor) -> Tensor:
        """Log density of individual parameters, shape ``(*, latent)``, in unconstrained
        coordinates.
        """
        return _normal_log_prob(self.loc, self.scale_tril, unconstrained)

    def log_prob_shared(self, shared: Tensor) -> Tensor:
        """Log density of unconstrained shared parameters, shape ``(*, shared)``, where it is
        known.
        """
        assert self.shared_law is not None
        return _normal_log_prob(*self.shared_law, shared)

    def with_normal_shared(self, inflation: float = 1.2) -> "TrainingDistribution":
        """The same with a normal distribution of the shared parameters, of inflated moments."""
        if self.shared_law is not None or self.shared.shape[1] == 0:
            return self
        loc, spread = robust_moments(self.shared)
        return replace(self, shared_law=(loc, inflation * spread))


def _normal_draws(loc: Tensor, scale_tril: Tensor, num: int, generator: Generator) -> Tensor:
    noise = torch.randn(num, len(loc), generator=generator, dtype=torch.float64)
    return loc + noise @ scale_tril.T


def _normal_log_prob(loc: Tensor, scale_tril: Tensor, value: Tensor) -> Tensor:
    centered = (value - loc).unsqueeze(-1)
    tril = scale_tril.expand(*centered.shape[:-2], -1, -1)
    z = torch.linalg.solve_triangular(tril, centered, upper=False).squeeze(-1)
    log_det = scale_tril.diagonal().log().sum()
    return -0.5 * z.pow(2).sum(-1) - log_det - 0.5 * len(loc) * math.log(2 * math.pi)


def robust_moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and lower triangular scale of draws ``(draw, d)``, of which those beyond three robust
    standard deviations count as three.
    """
    center = draws.median(0).values
    low, high = draws.quantile(0.159, 0), draws.quantile(0.841, 0)
    spread = (high - low).clamp(min=1e-6) / 2
    standard = ((draws - center) / spread).clamp(-3, 3)
    covariance = torch.cov(standard.T).reshape(len(center), len(center))
    jitter = 1e-6 * torch.eye(len(center), dtype=covariance.dtype)
    scale_tril = spread.unsqueeze(-1) * factored(covariance + jitter)
    return center + spread * standard.mean(0), scale_tril


def default_training_distribution(
    structure: ModelStructure,
    cohort: Cohort,
    seed: int | Generator,
    *,
    inflation: float = 1.2,
    num_draws: int = 1000,
) -> TrainingDistribution:
    r"""The moments of the individual parameters under the prior predictive, inflated; c from its
    prior.

    A program without population parameters says itself how they are distributed: it is taken at its
    word.

    Draws beyond three robust standard deviations count as three, so that a prior with heavy tails
    does not make the training distribution arbitrarily wide.

    Args:
        structure: The program.
        cohort: Data or design; individuals enter only where covariates move their parameters.
        seed: Seed or generator.
        inflation: Factor on the standard deviations.
        num_draws: Number of populations drawn from the prior.
    """
    generator = make_generator(seed)
    populations = structure.draw_populations(cohort, num_draws, generator)
    few = cohort[torch.randperm(len(cohort), generator=generator)[:16]]
    draws = torch.cat([structure.draw_individuals(few, p, 1, generator)[0] for p in populations])
    finite = draws.isfinite().all(-1)
    if float(finite.double().mean()) < 0.9:
        raise TrainingError(
            f"{int((~finite).sum())} of {len(draws)} draws of the individual parameters are not "
            "finite.",
            "a prior that gives finite individual parameters.",
            "narrow the priors of the population (for instance HalfNormal in place of HalfCauchy).",
        )
    loc, scale_tril = robust_moments(draws[finite])
    prior = None if structure.population else structure
    if prior is None:
        scale_tril = scale_tril * inflation
    shared = torch.stack(
        [structure.unconstrain_population(p, structure.shared) for p in populations]
    )
    return TrainingDistribution(loc, scale_tril, shared[shared.isfinite().all(-1)], prior)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    r"""Simulated individuals.

    Args:
        cohort: Designs with simulated values.
        unconstrained: Individual parameters, shape ``(individual, latent)``.
        shared: Shared parameters, unconstrained, shape ``(individual, shared)``.
        num_failed: Simulations that were not finite; they are not among the individuals.
    """

    cohort: Cohort
    unconstrained: Tensor
    shared: Tensor
    num_failed: int

    def __len__(self) -> int:
        return len(self.cohort)


@dataclass(frozen=True, eq=False)
class Simulator:
    r"""Simulates any shard of a training set, in any order and any process: shard k depends on the
    seed and k alone.

    Args:
        structure: The program.
        design: Where times, doses, covariates and missingness come from. Of a design that tells
            what goes missing apart (:class:`~pyro_amortized.missing.Remaskable`), the complete
            form is simulated.
        distribution: Where individual and shared parameters come from.
        seed: Seed of all shards.
        num_noise: Observations drawn per individual and shared parameters: the program runs once,
            its observation laws are sampled this many times.
    """

    structure: ModelStructure
    design: Design
    distribution: TrainingDistribution
    seed: int
    num_noise: int = 1

    def __call__(self, shard: int, num_simulations: int) -> TrainingSet:
        """Shard number ``shard`` (-1: the validation set), without the simulations that are not
        finite.
        """
        generator = shard_generator(self.seed, shard)
        structure, sizes = self.structure, []
        for start in range(0, num_simulations, CALL_SIZE):
            sizes.append(min(CALL_SIZE, num_simulations - start))
        parts = [self._call(structure, size, generator) for size in sizes]
        return end_to_end_sets(parts)

    def _call(self, structure: ModelStructure, size: int, generator: Generator) -> TrainingSet:
        design = self.design
        plan = (
            design.complete(size, generator)
            if isinstance(design, Remaskable)
            else design(size, generator)
        )
        latent = self.distribution.draw_for(plan, 1, generator)[0]
        shared = self.distribution.draw_shared(size, generator)
        if structure.layout is None:
            shared = shared[::LOOP_SIZE].repeat_interleave(LOOP_SIZE, 0)[:size]
        cohorts, failed = structure.simulate_repeatedly(
            plan, latent, shared, structure.initial_population(), generator, self.num_noise
        )
        kept = (~failed).nonzero()[:, 0]
        if not len(kept):
            check_failures(size, size)
        sets = [TrainingSet(c[kept], latent[kept], shared[kept], 0) for c in cohorts]
        whole = end_to_end_sets(sets)
        return TrainingSet(whole.cohort, whole.unconstrained, whole.shared, int(failed.sum()))


def shard_generator(seed: int, *place: int) -> Generator:
    """A generator for one place (a shard, a pass) of a seeded run; places are independent."""
    words = np.random.SeedSequence([seed, *(p + 1 for p in place)]).generate_state(2)
    return Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))


def end_to_end_sets(sets: Sequence[TrainingSet]) -> TrainingSet:
    """Lay training sets end to end."""
    if len(sets) == 1:
        return sets[0]
    return TrainingSet(
        end_to_end([s.cohort for s in sets]),
        torch.cat([s.unconstrained for s in sets]),
        torch.cat([s.shared for s in sets]),
        sum(s.num_failed for s in sets),
    )


def simulate_training_set(
    structure: ModelStructure,
    design: Design,
    distribution: TrainingDistribution,
    num_simulations: int,
    *,
    seed: int,
) -> TrainingSet:
    r"""Simulate a training set in large calls of the program.

    Args:
        structure: The program.
        design: Where times, doses, covariates and missingness come from.
        distribution: Where individual and shared parameters come from.
        num_simulations: Number of individuals to simulate.
        seed: Seed.

    Returns:
        The simulations that are finite. How many were not is stated, and announced if more than 1
        %.

    Raises:
        TrainingError: More than half of the simulations are not finite.
    """
    announce_layout(structure)
    found = Simulator(structure, design, distribution, seed)(0, num_simulations)
    check_failures(found.num_failed, num_simulations)
    if isinstance(design, Remaskable):
        masked = design.missing(found.cohort, shard_generator(seed, 0, 0))
        found = TrainingSet(masked, found.unconstrained, found.shared, found.num_failed)
    return found


def announce_layout(structure: ModelStructure) -> None:
    """Warn if simulation has to call the program in a loop."""
    if structure.layout is None:
        warn_user(_slow_message(structure))


def check_failures(num_failed: int, num_simulations: int, announce: bool = True) -> None:
    r"""Say how many simulations were not finite, if more than 1 %.

    Raises:
        TrainingError: More than half of them.
    """
    share = num_failed / num_simulations
    if share > 0.5:
        raise TrainingError(
            f"{num_failed} of {num_simulations} simulations are not finite.",
            "a model that can be simulated under most of its training distribution.",
            "narrow the priors of the population, or pass `training_distribution=`.",
        )
    if announce and share > 0.01:
        warn_user(
            f"{num_failed} of {num_simulations} simulations ({share:.1%}) were not finite and "
            "are not trained on. "
            "Individuals with such parameters are outside the training distribution."
        )


def _slow_message(structure: ModelStructure) -> str:
    names = ", ".join(structure.shared)
    example = structure.shared[0]
    return (
        f"The program cannot be run with one value of {names} per individual, so simulation "
        "calls it once per "
        f"{LOOP_SIZE} individuals, which is slow. Write shared parameters so that they "
        "broadcast over individuals "
        f"and times: `{example}[..., None]` in place of `{example}`, `.unbind(-1)` in place of "
        "`[0]`."
    )
