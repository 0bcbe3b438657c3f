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
)
from .isolation import seeded
from .mixture import StudentMixture, fit_student_mixture
from .modes import located_mixture, tempered_weights

Target = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
MIN_PILOT = 100
PILOT_SHARE = 0.1
MAX_DRAWS = 400_000  # of all individuals that are sampled together
# A pilot with fewer effective draws says too little about a covariance: the modes are climbed to.
THIN = 20.0
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
        self,
        num_draws: int,
        num: int,
        generator: Generator,
        refine: bool,
        pilot: Weighted | None = None,
    ) -> tuple[Weighted, tuple[bool, ...]]:
        r"""Weighted draws of ``num`` individuals, and whether each was refined.

        A pilot from the guide shows whether it will do. Where it will, all draws come from it;
        where it will not, they come from a mixture fitted to the pilot. Draws that decide or fit
        anything are never among the draws that estimate: that would bias the estimate.

        Args:
            num_draws: Draws per individual.
            num: Number of individuals; they are taken some at a time.
            generator: Source of randomness.
            refine: Refine individuals whose weights are poor.
            pilot: Weighted draws made before (for another population, say), in place of those
                from the guide.
        """
        parts, refined = [], []
        for rows in torch.arange(num).split(max(1, MAX_DRAWS // num_draws)):
            if not refine:
                parts.append(self._from_guide(num_draws, rows, generator))
                refined += [False] * len(rows)
                continue
            known = None if pilot is None else pilot.take(rows)
            found, bad = self._sample_rows(num_draws, rows, generator, known)
            parts.append(found)
            refined += bad.tolist()
        columns = (torch.cat(x, 1) for x in zip(*(vars(p).values() for p in parts), strict=True))
        return Weighted(*columns), tuple(refined)

    def _sample_rows(
        self, num_draws: int, rows: Tensor, generator: Generator, pilot: Weighted | None
    ) -> tuple[Weighted, Tensor]:
        if pilot is None:
            num_pilot = max(MIN_PILOT, round(PILOT_SHARE * num_draws))
            pilot = self._from_guide(num_pilot, rows, generator)
            bad = _poor(pilot.log_weights, GOOD)
        else:
            bad = torch.ones(len(rows), dtype=torch.bool)
        good = (~bad).nonzero()[:, 0]
        result = _empty(num_draws, len(rows), pilot)
        if len(good):
            found = self._from_guide(num_draws, rows[good], generator)
            result.put(good, found)
            bad[good] = _poor(found.log_weights, FAIR)
        left = bad.nonzero()[:, 0]
        if len(left):
            result.put(left, self._refine(pilot.take(left), rows[left], num_draws, generator))
        return result, bad

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
        thin = importance_estimate(pilot.log_weights).ess < THIN
        best = _empty(num_draws, len(rows), pilot)
        for picked, located in ((~thin, False), (thin, True)):
            where = picked.nonzero()[:, 0]
            if len(where):
                adapt = self._locate if located else self._adapt
                mixture = adapt(pilot.take(where), rows[where], generator)
                found = self._from_mixture(mixture, num_draws, rows[where], generator)
                start = mixture if located else None
                best.put(where, self._improve(found, rows[where], generator, start))
        return best

    def _improve(
        self, best: Weighted, rows: Tensor, generator: Generator, start: StudentMixture | None
    ) -> Weighted:
        """Rounds with more components and draws (from ``start``, with the same components and more
        draws) for individuals whose weights are poor.
        """
        num_draws = len(best.draws)
        for num_components, factor, efficiency in ROUNDS:
            active = _poor(best.log_weights, efficiency).nonzero()[:, 0]
            if len(active) == 0:
                break
            known = None if start is None else start.take(active)
            mixture = _fitted(best.take(active), num_components, generator, known)
            if factor > 1:
                many = self._from_mixture(mixture, factor * num_draws, rows[active], generator)
                mixture = _fitted(many, num_components, generator, known)
            found = self._from_mixture(mixture, num_draws, rows[active], generator)
            better = _score(found.log_weights) > _score(best.log_weights[:, active])
            best.put(active[better], found.take(better))
        return best

    def _adapt(self, pilot: Weighted, rows: Tensor, generator: Generator) -> StudentMixture:
        """One component, fitted to the pilot and once more to its own draws."""
        mixture = _fitted(pilot, 1, generator)
        return _fitted(self._from_mixture(mixture, len(pilot.draws), rows, generator), 1, generator)

    def _locate(self, pilot: Weighted, rows: Tensor, generator: Generator) -> StudentMixture:
        """The mixture around the modes."""

        def target(points: Tensor) -> Tensor:
            apart = points.reshape(-1, len(rows), points.shape[-1])
            return self.target(apart, rows).reshape(points.shape[:-1])

        return located_mixture(target, pilot.draws, pilot.log_weights, generator)

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


def _fitted(
    source: Weighted,
    num_components: int,
    generator: Generator,
    start: StudentMixture | None = None,
) -> StudentMixture:
    """A mixture for weighted draws (with as many components as ``start``, if it is given): a
    covariance needs some five effective draws per dimension.
    """
    if start is not None:
        num_components = start.means.shape[1]
    wanted = min(50.0, max(10.0, 5.0 * num_components * source.draws.shape[-1]))
    weights = tempered_weights(source.log_weights, wanted)
    return fit_student_mixture(source.draws, weights, num_components, generator, start=start)


def _poor(log_weights: Tensor, efficiency: float) -> Tensor:
    estimate = importance_estimate(log_weights)
    return (estimate.ess < efficiency * len(log_weights)) | (estimate.pareto_k > PARETO_K_LIMIT)


def _score(log_weights: Tensor) -> Tensor:
    """Effective draws; weights that cannot be trusted (Pareto k) count for little."""
    estimate = importance_estimate(log_weights)
    trusted = torch.where(estimate.pareto_k <= PARETO_K_LIMIT, 1.0, 0.01)
    return estimate.ess * trusted
