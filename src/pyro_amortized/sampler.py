r"""Importance sampling of many small targets at once, each refined on its own where its weights are
poor.

Knows no cohort and no program: targets, proposals and the defensive part are callables of draws
``(draw, row, latent)`` and of the rows they belong to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from .flows import FlowDistribution
from .importance import (
    PARETO_K_LIMIT,
    finite_or_zero_weight,
    importance_estimate,
    normalized_weights,
)
from .isolation import seeded
from .mixture import StudentMixture, fit_student_mixture

Target = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
MIN_PILOT = 100
PILOT_SHARE = 0.1
NUM_BATCHES = 1
GUIDE_SHARE, POPULATION_SHARE = 0.05, 0.05
# Efficiency (effective share of the draws) from which a guide is good, and fair.
GOOD, FAIR = 0.8, 0.5
# Later rounds: components of the mixture, draws to fit it as a multiple of the final ones, and the
# efficiency below which an individual needs the round: one component is cheap and worth it early,
# five are for what else would fail.
ROUNDS = ((1, 1, 0.6), (3, 2, 0.5), (5, 4, 0.3))


class Proposal(Protocol):
    """What draws come from first."""

    has_density: bool

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        ...

    def log_prob(self, draws: Tensor, rows: Tensor) -> Tensor:
        """Log density at any draws, where ``has_density`` is True."""
        ...


class FlowProposal:
    """The amortized posterior of every row as a proposal."""

    has_density = True

    def __init__(self, law: FlowDistribution) -> None:
        self.law = law

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws and their log density."""
        law = self.law.take(rows)
        with seeded(generator):
            draws = law.rsample(torch.Size([num_draws]))
        return draws, law.log_prob(draws)

    def log_prob(self, draws: Tensor, rows: Tensor) -> Tensor:
        """Log density at any draws."""
        return self.law.take(rows).log_prob(draws)


@dataclass(frozen=True, eq=False)
class Weighted:
    """Draws ``(draw, row, latent)``, their log proposal density and log weights ``(draw, row)``."""

    draws: Tensor
    log_proposal: Tensor
    log_weights: Tensor

    def take(self, rows: Tensor) -> "Weighted":
        """Some of the individuals."""
        return Weighted(self.draws[:, rows], self.log_proposal[:, rows], self.log_weights[:, rows])

    def put(self, rows: Tensor, other: "Weighted") -> None:
        """Replace some of the individuals, in place."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[:, rows] = theirs


@dataclass(frozen=True, eq=False)
class Sampler:
    r"""Importance sampling of a batch of targets, with refinement per individual.

    Args:
        target: Log target density of draws ``(draw, row, latent)`` of the given individuals.
        population: Draws from the defensive part.
        log_population: Its log density.
        proposal: The guide.
    """

    target: Target
    population: Draw
    log_population: Target
    proposal: Proposal

    def sample(
        self, num_draws: int, num: int, generator: Generator, refine: bool
    ) -> tuple[Weighted, tuple[str, ...]]:
        r"""Weighted draws of ``num`` individuals, and where they come from.

        A pilot from the guide shows whether it will do. Where it will, all draws come from it;
        where it will not, they come from a mixture fitted to the pilot. Draws that decide or fit
        anything are never among the draws that estimate: that would bias the estimate.
        """
        rows = torch.arange(num)
        if not refine:
            return self._from_guide(num_draws, rows, generator), ("guide",) * num
        num_pilot = max(MIN_PILOT, round(PILOT_SHARE * num_draws))
        pilot = self._from_guide(num_pilot, rows, generator)
        bad = _poor(pilot.log_weights, GOOD)
        good_rows = (~bad).nonzero()[:, 0]
        result = _empty(num_draws, num, pilot)
        if len(good_rows):
            found = self._from_guide(num_draws, good_rows, generator)
            result.put(good_rows, found)
            bad[good_rows] = _poor(found.log_weights, FAIR)
        bad_rows = bad.nonzero()[:, 0]
        if len(bad_rows):
            result.put(bad_rows, self._refine(pilot.take(bad_rows), bad_rows, num_draws, generator))
        return result, tuple("student-t mixture" if x else "guide" for x in bad.tolist())

    def _from_guide(self, num_draws: int, rows: Tensor, generator: Generator) -> Weighted:
        draws, log_proposal = self.proposal.draw(num_draws, rows, generator)
        return self._weigh(draws, log_proposal, rows)

    def _weigh(self, draws: Tensor, log_proposal: Tensor, rows: Tensor) -> Weighted:
        log_weights = finite_or_zero_weight(self.target(draws, rows) - log_proposal)
        return Weighted(draws, log_proposal, log_weights)

    def _refine(
        self, pilot: Weighted, rows: Tensor, num_draws: int, generator: Generator
    ) -> Weighted:
        """Adapt a mixture on small batches, draw from it; more components where that is poor."""
        batch = pilot
        for _ in range(NUM_BATCHES):
            mixture = _fitted(batch, 1, generator)
            batch = self._from_mixture(mixture, len(pilot.draws), rows, generator)
        mixture = _fitted(batch, 1, generator)
        best = self._from_mixture(mixture, num_draws, rows, generator)
        for num_components, factor, efficiency in ROUNDS:
            active = _poor(best.log_weights, efficiency).nonzero()[:, 0]
            if len(active) == 0:
                break
            mixture = _fitted(best.take(active), num_components, generator)
            if factor > 1:
                many = self._from_mixture(mixture, factor * num_draws, rows[active], generator)
                mixture = _fitted(many, num_components, generator)
            found = self._from_mixture(mixture, num_draws, rows[active], generator)
            better = _score(found.log_weights) > _score(best.log_weights[:, active])
            best.put(active[better], found.take(better))
        return best

    def _from_mixture(
        self, mixture: StudentMixture, num_draws: int, rows: Tensor, generator: Generator
    ) -> Weighted:
        """Draws of the deterministic mixture of Student-t mixture, guide and population."""
        num_guide = round(GUIDE_SHARE * num_draws) if self.proposal.has_density else 0
        num_population = round(POPULATION_SHARE * num_draws)
        num_mixture = num_draws - num_guide - num_population
        parts = [mixture.draw(num_mixture, generator)]
        if num_guide:
            parts.append(self.proposal.draw(num_guide, rows, generator)[0])
        parts.append(self.population(num_population, rows, generator))
        draws = torch.cat(parts)
        terms = [math.log(num_mixture / num_draws) + mixture.log_prob(draws)]
        if num_guide:
            terms.append(math.log(num_guide / num_draws) + self.proposal.log_prob(draws, rows))
        terms.append(math.log(num_population / num_draws) + self.log_population(draws, rows))
        known = [t.nan_to_num(-math.inf, math.inf, -math.inf) for t in terms]
        return self._weigh(draws, torch.stack(known).logsumexp(0), rows)


def _empty(num_draws: int, num: int, like: Weighted) -> Weighted:
    shape = (num_draws, num)
    draws = like.draws.new_empty(*shape, like.draws.shape[-1])
    return Weighted(draws, draws.new_empty(shape), draws.new_empty(shape))


def tempered_weights(log_weights: Tensor, wanted: float) -> Tensor:
    """Normalised weights, flattened by a power below one until ``wanted`` draws are effective."""
    power = torch.ones(log_weights.shape[1], dtype=log_weights.dtype)
    weights = normalized_weights(log_weights)
    for _ in range(30):
        few = 1 / weights.pow(2).sum(0) < min(wanted, 0.2 * len(log_weights))
        if not bool(few.any()):
            break
        power = torch.where(few, power * 0.7, power)
        weights = normalized_weights(_scaled(log_weights, power))
    return weights


def _fitted(source: Weighted, num_components: int, generator: Generator) -> StudentMixture:
    """A mixture for weighted draws: a covariance needs some five effective draws per dimension."""
    wanted = min(50.0, max(10.0, 5.0 * num_components * source.draws.shape[-1]))
    weights = tempered_weights(source.log_weights, wanted)
    return fit_student_mixture(source.draws, weights, num_components, generator)


def _scaled(log_weights: Tensor, power: Tensor) -> Tensor:
    return torch.where(log_weights == -math.inf, log_weights, log_weights * power)


def _poor(log_weights: Tensor, efficiency: float) -> Tensor:
    estimate = importance_estimate(log_weights)
    return (estimate.ess < efficiency * len(log_weights)) | (estimate.pareto_k > PARETO_K_LIMIT)


def _score(log_weights: Tensor) -> Tensor:
    """Effective draws; weights that cannot be trusted (Pareto k) count for little."""
    estimate = importance_estimate(log_weights)
    trusted = torch.where(estimate.pareto_k <= PARETO_K_LIMIT, 1.0, 0.01)
    return estimate.ess * trusted
