r"""How much more likely data would be without a mistake: marginal likelihoods of many alternatives.

Each individual of each alternative has a marginal likelihood of its own; alternatives are those of
:mod:`~pyro_amortized.diagnostics.data_mistakes.written_alternatives`. It is approximated at the
mode of its parameters, which Newton steps find from the posterior of the data as written. The score
in the population parameters is the posterior mean of the derivative of the log density (identity of
Fisher).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...cohort.concatenation import end_to_end
from ...numerics.cholesky import factored
from ...numerics.newton_steps import newton_step
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from ...sampling.adaptive_importance import sample_targets
from ...sampling.importance_weights import importance_estimate
from ...sampling.individual_sampler import make_sampler
from ...sampling.posterior_centers import posterior_centers
from ..refused_data import REFUSALS
from .written_alternatives import Alternative


@dataclass(frozen=True)
class LikelihoodSettings:
    r"""Effort of the integrals.

    Args:
        first_steps: Newton steps for every individual and alternative.
        more_steps: Further ones of those that are not unlikely, or far from their mode.
        min_gain: Log likelihood ratio after the first steps from which they are taken ...
        min_change: ... or change in the last step, up or down: the mode is far away.
        settled: Change below which a mode is found.
        jitter: Part of the variances that is added to a covariance of draws.
        num_draws: Draws of each individual for what is found.
        difference: Step of the derivatives in the population, in standard errors.
    """

    first_steps: int = 2
    more_steps: int = 8
    min_gain: float = -10.0
    min_change: float = 0.5
    settled: float = 0.01
    jitter: float = 1e-6
    num_draws: int = 300
    difference: float = 0.05


DEFAULTS = LikelihoodSettings()


class Approximated(NamedTuple):
    r"""Individuals with normal approximations of their posteriors.

    Args:
        cohort: Their data.
        location: Modes, shape ``(individual, latent)``.
        scale: Cholesky factors, shape ``(individual, latent, latent)``.
        masses: Log likelihoods of the values as written, shape ``(individual,)``.
        scores: Their derivatives in the estimated population parameters, shape ``(individual,
            parameter)``; empty where they are not needed.
    """

    cohort: Cohort
    location: Tensor
    scale: Tensor
    masses: Tensor
    scores: Tensor

    def take(self, places: Tensor) -> "Approximated":
        """Some of the individuals."""
        return Approximated(self.cohort[places], *(x[places] for x in self[1:]))


class Compared(NamedTuple):
    """The data as written, the alternatives, and their individuals as they would be."""

    written: Approximated
    alternatives: Sequence[Alternative]
    changed: Sequence[Approximated]

    def gain(self, index: int) -> Tensor:
        """Log likelihood ratios of the individuals of an alternative."""
        before = self.written.masses[self.alternatives[index].rows]
        return (self.changed[index].masses - before).nan_to_num(-torch.inf, torch.inf, -torch.inf)


def possible_alternatives(
    fit: PopulationFit, alternatives: Sequence[Alternative]
) -> list[Alternative]:
    """Those that the program accepts: it may refuse times before its start, for instance.

    Args:
        fit: The fit.
        alternatives: At least one.
    """
    centers = posterior_centers(fit.individuals)

    def accepts(some: Sequence[Alternative]) -> bool:
        rows = torch.cat([a.rows for a in some])
        try:
            data = end_to_end([a.cohort for a in some])
            fit.structure.log_density(data, centers[rows].unsqueeze(0), fit.estimates)
        except REFUSALS:
            return False
        return True

    if not alternatives or accepts(alternatives):
        return list(alternatives)
    return [a for a in alternatives if accepts([a])]


def compare_alternatives(
    fit: PopulationFit, cohort: Cohort, alternatives: Sequence[Alternative]
) -> Compared:
    """The log likelihoods of every individual of every alternative, approximately.

    Args:
        fit: The fit.
        cohort: Its data, in float64.
        alternatives: At least one.
    """
    location, scale = _normal_posteriors(fit)
    none = torch.full((len(cohort),), -torch.inf, dtype=torch.float64)
    written = approximated(fit, fit.vector, cohort, (location, scale), none)
    written = written._replace(scores=likelihood_scores(fit, fit.vector, written))
    rows = torch.cat([a.rows for a in alternatives])
    start = written.location[rows], written.scale[rows]
    others = end_to_end([a.cohort for a in alternatives])
    volume = torch.cat([log_volume_of(a) for a in alternatives])
    changed = approximated(fit, fit.vector, others, start, written.masses[rows] - volume)
    changed = changed._replace(masses=changed.masses + volume)
    parts = torch.arange(len(rows)).split([len(a.rows) for a in alternatives])
    own = [changed.take(x) for x in parts]
    for k, alternative in enumerate(alternatives):
        if alternative.moves_population:
            own[k] = own[k]._replace(scores=likelihood_scores(fit, fit.vector, own[k]))
    return Compared(written, alternatives, own)


def log_volume_of(alternative: Alternative) -> Tensor:
    """Logarithm of the change of the unit of the values, shape ``(changed,)``."""
    none = torch.zeros(len(alternative.rows), dtype=torch.float64)
    return none if alternative.log_volume is None else alternative.log_volume


def approximated(
    fit: PopulationFit,
    vector: Tensor,
    cohort: Cohort,
    start: tuple[Tensor, Tensor],
    written: Tensor | None,
) -> Approximated:
    """Individuals with normal approximations at their modes.

    Args:
        fit: The fit.
        vector: The population, unconstrained.
        cohort: Data of the individuals.
        start: First places and Cholesky factors.
        written: Log likelihoods as written; what is far less likely gets the first steps only.
            None: there are no others.
    """
    population = fit.structure.constrain_population(vector)
    sampler = make_sampler(None, fit.structure, cohort, population)
    location, scale = (x.clone() for x in start)
    constant = 0.5 * math.log(2 * math.pi) * location.shape[1]
    masses = torch.full((len(cohort),), -torch.inf, dtype=torch.float64)
    active = torch.arange(len(cohort))
    for step in range(DEFAULTS.first_steps + DEFAULTS.more_steps):

        def target(points: Tensor, rows: Tensor = active) -> Tensor:
            return sampler.target(points, rows)

        here, width, density = newton_step(target, location[active], scale[active])
        location[active], scale[active] = here, width
        found = density + constant + width.diagonal(dim1=1, dim2=2).log().sum(1)
        rise = found - masses[active]
        masses[active] = found
        if step + 1 >= DEFAULTS.first_steps:
            if written is None:
                break
            is_near = found - written[active] > DEFAULTS.min_gain
            # A step far from the mode may also lower the mass: the scale there narrows first.
            is_far = rise.abs() > DEFAULTS.min_change
            active = active[is_far | (is_near & (rise.abs() > DEFAULTS.settled))]
            if len(active) == 0:
                break
    return Approximated(cohort, location, scale, masses, masses.new_zeros(len(cohort), 0))


def likelihood_scores(fit: PopulationFit, vector: Tensor, individuals: Approximated) -> Tensor:
    """Derivatives of the log likelihoods in the estimated parameters, shape ``(individual,
    parameter)``, by differences at points with the mean and the covariance of the posterior.
    """
    d = individuals.location.shape[1]
    unit = math.sqrt(d) * torch.eye(d, dtype=torch.float64)
    move = torch.einsum("nij,kj->kni", individuals.scale, torch.cat([unit, -unit]))
    points = individuals.location + move
    structure, cohort = fit.structure, individuals.cohort
    is_shared = structure.coordinates(structure.shared).tolist()
    errors = fit.covariance.diagonal().sqrt()
    scores = []
    for j in fit.estimated.nonzero()[:, 0].tolist():
        step = torch.zeros_like(vector)
        step[j] = DEFAULTS.difference * errors[j]
        both = [structure.constrain_population(x) for x in (vector + step, vector - step)]
        ahead, behind = (structure.log_individual(cohort, points, x) for x in both)
        change = ahead - behind
        if is_shared[j]:  # else the observations have the same density at both
            ahead, behind = structure.log_observations(cohort, points, both)
            change += ahead - behind
        scores.append(change.mean(0) / (2 * step[j]))
    return torch.stack(scores, -1).nan_to_num(0.0, 0.0, 0.0)


def exact_gains(fit: PopulationFit, alternative: Alternative, places: Tensor, seed: int) -> Tensor:
    """Log likelihood ratios of some individuals of an alternative by importance sampling.

    Args:
        fit: The fit.
        alternative: The alternative.
        places: Which of the individuals that it changes.
        seed: Seed of the draws.
    """
    cohort = alternative.cohort[places]
    sampler = make_sampler(None, fit.structure, cohort, fit.estimates)
    generator = make_generator(seed)
    sampled = sample_targets(sampler, DEFAULTS.num_draws, len(cohort), generator, refine=True)
    estimate = importance_estimate(sampled.weighted.log_weights)
    before = fit.marginal.log_likelihood[alternative.rows[places]]
    return estimate.log_mean + log_volume_of(alternative)[places] - before


def _normal_posteriors(fit: PopulationFit) -> tuple[Tensor, Tensor]:
    """Centres and Cholesky factors of the posteriors of all individuals."""
    individuals = fit.individuals
    draws, weights = individuals.unconstrained, individuals.weights
    offset = draws - torch.einsum("kn,knd->nd", weights, draws)
    covariance = torch.einsum("kn,knd,kne->nde", weights, offset, offset)
    variances = covariance.diagonal(dim1=1, dim2=2)
    floor = DEFAULTS.jitter * variances.mean(0).clamp(min=1e-12)
    return posterior_centers(individuals), factored(covariance + floor.diag_embed())
