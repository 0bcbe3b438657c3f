r"""How much more likely data would be without a mistake: marginal likelihoods of many alternatives.

Each individual of each alternative (:mod:`pyro_amortized.diagnostics.written_alternatives`) has a
marginal likelihood of its own. It is approximated at the mode of its parameters, which Newton steps
find from the posterior of the data as written. A mistake in many individuals moves the population
as well: with their scores :math:`s` at the estimates :math:`\hat\Psi`, whose covariance is C, the
maximum lies about :math:`C s` away and is :math:`s^\top C s / 2` higher. The score is the posterior
mean of the derivative of the log density (identity of Fisher).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..cohort import Cohort
from ..cohort.concatenation import end_to_end
from ..numerics.cholesky import factored
from ..numerics.newton_steps import newton_step
from ..population.fit_result import PopulationFit
from ..runtime.random_numbers import make_generator
from ..sampling.adaptive_importance import sample_targets
from ..sampling.importance_weights import importance_estimate
from ..sampling.individual_sampler import make_sampler
from ..sampling.posterior_centers import posterior_centers
from .written_alternatives import Alternative, with_covariates


@dataclass(frozen=True)
class LikelihoodSettings:
    r"""Effort of the integrals.

    Args:
        first_steps: Newton steps for every individual and alternative.
        more_steps: Further ones of those that are not unlikely, or far from their mode.
        min_gain: Log likelihood ratio after the first steps from which they are taken ...
        min_rise: ... or rise in the last step: the mode is far away.
        settled: Rise from which a mode is found.
        jitter: Part of the variances that is added to a covariance of draws.
        num_draws: Draws of each individual for what is found.
        difference: Step of the derivatives in the population, in standard errors.
        max_move: Farthest move of the population, in standard errors, that the second order says
            something about.
        lowest: Log likelihood ratio at the estimates below which no move mends it.
        lengths: Lengths of a move of the population that are tried.
        num_moves: Most moves.
        min_gained: Gain of a move in log likelihood below which no other follows.
    """

    first_steps: int = 2
    more_steps: int = 8
    min_gain: float = -10.0
    min_rise: float = 0.5
    settled: float = 0.01
    jitter: float = 1e-6
    num_draws: int = 300
    difference: float = 0.05
    max_move: float = 5.0
    lowest: float = -30.0
    lengths: tuple[float, ...] = (0.5, 1.0)
    num_moves: int = 4
    min_gained: float = 0.3


DEFAULTS = LikelihoodSettings()


class Approximated(NamedTuple):
    r"""Individuals with normal approximations of their posteriors.

    Args:
        cohort: Their data.
        location: Modes, shape ``(individual, latent)``.
        scale: Cholesky factors, shape ``(individual, latent, latent)``.
        masses: Log likelihoods, shape ``(individual,)``.
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


def used_covariates(fit: PopulationFit, cohort: Cohort) -> list[str]:
    """Names of the covariates that change the density of some individual."""
    points = posterior_centers(fit.individuals).unsqueeze(0)

    def density(data: Cohort) -> Tensor:
        parts = fit.structure.log_density(data, points, fit.estimates)
        return (parts.observation + parts.individual)[0]

    before, every, used = density(cohort), torch.arange(len(cohort)), []
    for name, x in cohort.covariates.items():
        other = density(with_covariates(cohort, every, {name: x.roll(1, 0)}))
        if not torch.allclose(before, other, rtol=1e-9, atol=1e-9, equal_nan=True):
            used.append(name)
    return used


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
    written = written._replace(scores=_scores(fit, fit.vector, written))
    rows = torch.cat([a.rows for a in alternatives])
    start = written.location[rows], written.scale[rows]
    others = end_to_end([a.cohort for a in alternatives])
    changed = approximated(fit, fit.vector, others, start, written.masses[rows])
    parts = torch.arange(len(rows)).split([len(a.rows) for a in alternatives])
    own = [changed.take(x) for x in parts]
    for k, alternative in enumerate(alternatives):
        if alternative.moves_population:
            own[k] = own[k]._replace(scores=_scores(fit, fit.vector, own[k]))
    return Compared(written, alternatives, own)


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
            active = active[
                (rise > DEFAULTS.min_rise) | (is_near & (rise.abs() > DEFAULTS.settled))
            ]
            if len(active) == 0:
                break
    return Approximated(cohort, location, scale, masses, masses.new_zeros(len(cohort), 0))


def _scores(fit: PopulationFit, vector: Tensor, individuals: Approximated) -> Tensor:
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


def at_maximum(fit: PopulationFit, compared: Compared, index: int, weights: Tensor) -> float:
    r"""Log likelihood ratio of an alternative in many individuals at its own population.

    Args:
        fit: The fit.
        compared: What is compared.
        index: Index of the alternative.
        weights: Prior probabilities that the individuals are changed, shape ``(case, changed)``;
            the mean over the cases counts.
    """
    places = (weights > 0).any(0).nonzero()[:, 0]
    rows, weights = compared.alternatives[index].rows[places], weights[:, places]
    known = fit.estimated
    covariance = fit.covariance[known][:, known]
    written, changed, vector = compared.written, compared.changed[index].take(places), fit.vector
    changed = changed._replace(scores=_scores(fit, vector, changed))
    best = _log_ratio(written.masses, changed.masses, rows, weights)
    before = float(written.masses.sum())
    for _ in range(DEFAULTS.num_moves):
        score = written.scores.sum(0) + _responsible(written, changed, rows, weights)
        moved = []
        for length in DEFAULTS.lengths:
            other = vector.clone()
            other[known] += length * (covariance @ score)
            pair = [
                approximated(fit, other, x.cohort, (x.location, x.scale), None)
                for x in (written, changed)
            ]
            ratio = _log_ratio(pair[0].masses, pair[1].masses, rows, weights) - before
            moved.append((ratio + before, other, pair))
        top = max(moved, key=lambda x: x[0])
        if not top[0] > best:
            break
        gained = top[0] - best
        best, vector = top[0], top[1]
        written, changed = (x._replace(scores=_scores(fit, vector, x)) for x in top[2])
        if gained < DEFAULTS.min_gained:
            break
    return best - before


def _log_ratio(written: Tensor, changed: Tensor, rows: Tensor, weights: Tensor) -> float:
    """Log likelihood of all individuals, a mean over the cases of the prior probabilities."""
    others = written.sum() - written[rows].sum()
    either = torch.logaddexp(torch.log1p(-weights) + written[rows], weights.log() + changed)
    return float((others + either.sum(1)).logsumexp(0)) - math.log(len(weights))


def _responsible(
    written: Approximated, changed: Approximated, rows: Tensor, weights: Tensor
) -> Tensor:
    """What the changed individuals add to the score, with their probabilities to be changed."""
    before, after = written.masses[rows], changed.masses
    either = torch.logaddexp(torch.log1p(-weights) + before, weights.log() + after)
    case = either.sum(1).softmax(0)
    probability = torch.exp(weights.log() + after - either)
    mean = (case.unsqueeze(1) * probability).sum(0)
    return (mean.unsqueeze(1) * (changed.scores - written.scores[rows])).sum(0)


def expected_gain(fit: PopulationFit, compared: Compared, index: int, weights: Tensor) -> float:
    """As :func:`at_maximum`, to second order."""
    known, rows = fit.estimated, compared.alternatives[index].rows
    written, changed = compared.written, compared.changed[index]
    score = _responsible(written, changed, rows, weights)
    move = float(score @ fit.covariance[known][:, known] @ score)
    here = _log_ratio(written.masses, changed.masses, rows, weights) - float(written.masses.sum())
    if here < DEFAULTS.lowest:
        return here
    return here + 0.5 * min(max(move, 0.0), DEFAULTS.max_move**2)


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
    return estimate.log_mean - fit.marginal.log_likelihood[alternative.rows[places]]


def _normal_posteriors(fit: PopulationFit) -> tuple[Tensor, Tensor]:
    """Centres and Cholesky factors of the posteriors of all individuals."""
    individuals = fit.individuals
    draws, weights = individuals.unconstrained, individuals.weights
    offset = draws - torch.einsum("kn,knd->nd", weights, draws)
    covariance = torch.einsum("kn,knd,kne->nde", weights, offset, offset)
    variances = covariance.diagonal(dim1=1, dim2=2)
    floor = DEFAULTS.jitter * variances.mean(0).clamp(min=1e-12)
    return posterior_centers(individuals), factored(covariance + floor.diag_embed())
