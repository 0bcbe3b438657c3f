r"""Importance sampling of many small targets at once, each refined on its own where its weights are
poor.

Knows no cohort and no program: targets, proposals and the defensive part are callables of draws
``(draw, row, latent)`` and of the rows they belong to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .importance_weights import (
    PARETO_K_LIMIT,
    effective_sample_size,
    finite_or_zero_weight,
    importance_estimate,
)
from .mode_mixture import located_mixture, tempered_weights
from .proposals import Proposal, Refinement, Sampled, Weighted
from .student_mixture import UNUSED, StudentMixture, fit_student_mixture

Target = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
MIN_PILOT = 100
PILOT_SHARE = 0.1
MAX_DRAWS = 400_000  # of all individuals that are sampled together
# A pilot with fewer effective draws says too little about a covariance: the modes are climbed to.
THIN = 20.0
GUIDE_SHARE, POPULATION_SHARE, STRETCHED_SHARE = 0.05, 0.05, 0.1
NUM_SPREAD = 50  # draws that say how wide the population is
WIDER, LEAST_ADAPTED = 2.5, 600  # of located mixtures that are fitted to their own draws
MAX_SHAPE, NUM_GUIDE = 200, 3  # draws and components that say where the guide lies
# Efficiency (effective share of the draws) from which a guide is good, and fair.
GOOD, FAIR = 0.8, 0.5
STILL_FAIR = 0.45  # of a mixture, when the population has moved
# Later rounds: components of the mixture, draws to fit it as a multiple of the final ones, and the
# efficiency below which an individual needs the round: one component is cheap and worth it early,
# five are for what else would fail.
MAX_COMPONENTS = 5
ROUNDS = ((1, 1, 0.6), (3, 2, 0.5), (5, 4, 0.3))


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
        known: Refinement | None = None,
    ) -> Sampled:
        r"""Weighted draws of ``num`` individuals, and where they come from.

        A pilot from the guide shows whether it will do. Where it will, all draws come from it;
        where it will not, they come from a mixture fitted to the pilot. Draws that decide or fit
        anything are never among the draws that estimate: that would bias the estimate.

        Args:
            num_draws: Draws per individual.
            num: Number of individuals; they are taken some at a time.
            generator: Source of randomness.
            refine: Refine individuals whose weights are poor.
            known: What served before, for another population say: tried first.
        """
        parts = []
        for rows in torch.arange(num).split(max(1, MAX_DRAWS // num_draws)):
            if refine:
                before = None if known is None else known.take(rows)
                parts.append(self._sample_rows(num_draws, rows, generator, before))
            else:
                found = self.from_guide(num_draws, rows, generator)
                parts.append(Sampled(found, _no_refinement(found)))
        whole = zip(*(vars(p.weighted).values() for p in parts), strict=True)
        refinement = Refinement.cat([p.refinement for p in parts])
        return Sampled(Weighted(*(torch.cat(x, 1) for x in whole)), refinement)

    def _sample_rows(
        self, num_draws: int, rows: Tensor, generator: Generator, known: Refinement | None
    ) -> Sampled:
        if known is not None:
            return self._sample_again(num_draws, rows, generator, known)
        num_pilot = max(MIN_PILOT, round(PILOT_SHARE * num_draws))
        pilot = self.from_guide(num_pilot, rows, generator)
        bad = _poor(pilot.log_weights, GOOD)
        good = (~bad).nonzero()[:, 0]
        result = _empty(num_draws, len(rows), pilot)
        if len(good):
            found = self.from_guide(num_draws, rows[good], generator)
            result.put(good, found)
            bad[good] = _poor(found.log_weights, FAIR)
        drawn = Sampled(result, _no_refinement(pilot))
        self._mend(drawn, bad, pilot, rows, generator)
        return drawn

    def _sample_again(
        self, num_draws: int, rows: Tensor, generator: Generator, known: Refinement
    ) -> Sampled:
        """From what served before; where it no longer does, from the beginning."""
        result = None
        for where, refined in (((~known.refined), False), (known.refined, True)):
            mine = where.nonzero()[:, 0]
            if len(mine) == 0:
                continue
            found = (
                self.from_mixture(known.take(mine), num_draws, rows[mine], generator, True)
                if refined
                else self.from_guide(num_draws, rows[mine], generator)
            )
            result = _empty(num_draws, len(rows), found) if result is None else result
            result.put(mine, found)
        assert result is not None
        bad = _poor(result.log_weights, torch.where(known.refined, STILL_FAIR, FAIR))
        drawn = Sampled(result, Refinement.cat([known]))
        rich = effective_sample_size(result.log_weights) >= THIN
        bent = (bad & known.refined & rich).nonzero()[:, 0]
        if len(bent):  # shaped anew by the weights, with all its modes
            adapted = fitted(result.take(bent), 0, generator, known.mixture.take(bent))
            drawn.refinement.mixture.put(bent, adapted)
            again = drawn.refinement.take(bent)
            found = self.from_mixture(again, num_draws, rows[bent], generator, True)
            result.put(bent, found)
            bad[bent] = _poor(found.log_weights, STILL_FAIR)
        self._mend(drawn, bad, result, rows, generator)
        return drawn

    def _mend(
        self, drawn: Sampled, bad: Tensor, pilot: Weighted, rows: Tensor, generator: Generator
    ) -> None:
        """Refine the bad ones, from weighted draws that are not used again; in place."""
        refinement = drawn.refinement
        new = (bad & ~refinement.refined).nonzero()[:, 0]
        if len(new):  # their draws come from the guide
            refinement.guide.put(new, shape_of(pilot.draws[:MAX_SHAPE, new], generator))
        left = bad.nonzero()[:, 0]
        if len(left):
            part, num_draws = refinement.take(left), len(drawn.weighted.draws)
            found = self.refined_draws(part, pilot.take(left), rows[left], num_draws, generator)
            drawn.weighted.put(left, found)
            refinement.mixture.put(left, part.mixture)
        refinement.refined.logical_or_(bad)

    def from_guide(self, num_draws: int, rows: Tensor, generator: Generator) -> Weighted:
        """Weighted draws of some individuals from the guide."""
        draws, log_proposal = self.proposal.draw(num_draws, rows, generator)
        return self._weigh(draws, log_proposal, rows)

    def _weigh(self, draws: Tensor, log_proposal: Tensor, rows: Tensor) -> Weighted:
        log_weights = finite_or_zero_weight(self.target(draws, rows) - log_proposal)
        return Weighted(draws, log_proposal, log_weights)

    def refined_draws(
        self,
        part: Refinement,
        pilot: Weighted,
        rows: Tensor,
        num_draws: int,
        generator: Generator,
    ) -> Weighted:
        """Adapt mixtures on small batches, draw from them; more components where that is poor. The
        mixtures are put into ``part``.
        """
        thin = effective_sample_size(pilot.log_weights) < THIN
        best = _empty(num_draws, len(rows), pilot)
        for picked, located in ((~thin, False), (thin, True)):
            where = picked.nonzero()[:, 0]
            if len(where) == 0:
                continue
            if located:
                mixture = self._locate(pilot.take(where), rows[where], num_draws, generator)
                part.mixture.put(where, mixture)
            else:  # one component, fitted to the pilot and once more to its own draws
                part.mixture.put(where, fitted(pilot.take(where), 1, generator))
                size, mine = len(pilot.draws), part.take(where)
                again = self.from_mixture(mine, size, rows[where], generator)
                part.mixture.put(where, fitted(again, 1, generator))
            mine = part.take(where)
            best.put(where, self.from_mixture(mine, num_draws, rows[where], generator, located))
        self._improve(best, part, rows, thin, generator)
        return best

    def _improve(
        self,
        best: Weighted,
        part: Refinement,
        rows: Tensor,
        located: Tensor,
        generator: Generator,
    ) -> None:
        """Rounds with more components (where the modes are known, from these) and more draws for
        individuals whose weights are poor; in place.
        """
        num_draws = len(best.draws)
        for num_components, factor, efficiency in ROUNDS:
            poor = _poor(best.log_weights, efficiency)
            for picked in (poor & ~located, poor & located):
                active = picked.nonzero()[:, 0]
                if len(active) == 0:
                    continue
                stretch = bool(located[active[0]])
                mine = part.take(active)
                known = part.mixture.take(active) if stretch else None
                everyone = torch.arange(len(active))
                mine.mixture.put(
                    everyone, fitted(best.take(active), num_components, generator, known)
                )
                if factor > 1:
                    size = factor * num_draws
                    many = self.from_mixture(mine, size, rows[active], generator, stretch)
                    mine.mixture.put(everyone, fitted(many, num_components, generator, known))
                found = self.from_mixture(mine, num_draws, rows[active], generator, stretch)
                better = score(found.log_weights) > score(best.log_weights[:, active])
                best.put(active[better], found.take(better))
                part.mixture.put(active[better], mine.mixture.take(better))

    def _locate(
        self, pilot: Weighted, rows: Tensor, num_draws: int, generator: Generator
    ) -> StudentMixture:
        """The mixture around the modes; more effort where more draws are wanted."""
        num_walked = min(200, max(60, num_draws // 10))

        def target(points: Tensor) -> Tensor:
            apart = points.reshape(-1, len(rows), points.shape[-1])
            return self.target(apart, rows).reshape(points.shape[:-1])

        mixture = located_mixture(target, pilot.draws, pilot.log_weights, generator, num_walked)
        return self._adapted(mixture, rows, max(num_draws, LEAST_ADAPTED), generator)

    def _adapted(
        self, mixture: StudentMixture, rows: Tensor, num_draws: int, generator: Generator
    ) -> StudentMixture:
        """The mixture fitted once more, to weighted draws of itself, of a wider and of a stretched
        one: walkers seldom reach the far end of a bent ridge.
        """
        spread = self.population(NUM_SPREAD, rows, generator).std(0)
        sources = [
            (num_draws - 2 * (num_draws // 4), mixture),
            (num_draws // 4, mixture.widened(WIDER)),
            (num_draws // 4, mixture.stretched(spread)),
        ]
        draws = torch.cat([x.draw(num, generator) for num, x in sources])
        found = self._weigh_mixture(draws, [(n, x.log_prob) for n, x in sources], rows)
        return fitted(found, 0, generator, mixture)

    def from_mixture(
        self,
        part: Refinement,
        num_draws: int,
        rows: Tensor,
        generator: Generator,
        stretch: bool = False,
    ) -> Weighted:
        """Draws of the deterministic mixture of Student-t mixture, guide (its shape, at a fiftieth
        of its cost) and population; where the guide was far too wide, also of a stretched mixture.
        """
        num_guide = round(GUIDE_SHARE * num_draws)
        num_stretched = round(STRETCHED_SHARE * num_draws) if stretch else 0
        num_population = max(1, round(POPULATION_SHARE * num_draws))
        num_mixture = num_draws - num_guide - num_stretched - num_population
        population = self.population(max(num_population, NUM_SPREAD), rows, generator)
        sources = [(num_mixture, part.mixture), (num_guide, part.guide)]
        if num_stretched:
            sources.append((num_stretched, part.mixture.stretched(population.std(0))))
        draws = [x.draw(num, generator) for num, x in sources] + [population[:num_population]]
        terms: list[tuple[int, Callable[[Tensor], Tensor]]] = [(n, x.log_prob) for n, x in sources]
        terms.append((num_population, lambda x: self.log_population(x, rows)))
        return self._weigh_mixture(torch.cat(draws), terms, rows)

    def _weigh_mixture(
        self, draws: Tensor, terms: list[tuple[int, Callable[[Tensor], Tensor]]], rows: Tensor
    ) -> Weighted:
        known = [
            math.log(num / len(draws)) + log_prob(draws).nan_to_num(-math.inf, math.inf, -math.inf)
            for num, log_prob in terms
        ]
        return self._weigh(draws, torch.stack(known).logsumexp(0), rows)


def _empty(num_draws: int, num: int, like: Weighted) -> Weighted:
    shape = (num_draws, num)
    draws = like.draws.new_empty(*shape, like.draws.shape[-1])
    return Weighted(draws, draws.new_empty(shape), draws.new_empty(shape))


def fitted(
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


def shape_of(draws: Tensor, generator: Generator) -> StudentMixture:
    """Where draws lie."""
    draws = draws.nan_to_num(0.0, 0.0, 0.0)
    equal = torch.full(draws.shape[:2], 1 / len(draws), dtype=draws.dtype)
    return fit_student_mixture(draws, equal, NUM_GUIDE, generator)


def _no_refinement(like: Weighted) -> Refinement:
    """No individual is refined, and there is room for the mixtures of each."""
    num, d = like.draws.shape[1:]

    def room(num_components: int) -> StudentMixture:
        eye = torch.eye(d, dtype=like.draws.dtype, device=like.draws.device)
        return StudentMixture(
            like.draws.new_full((num, num_components), UNUSED),
            like.draws.new_zeros(num, num_components, d),
            eye.repeat(num, num_components, 1, 1),
        )

    return Refinement(torch.zeros(num, dtype=torch.bool), room(MAX_COMPONENTS), room(NUM_GUIDE))


def _poor(log_weights: Tensor, efficiency: float | Tensor) -> Tensor:
    estimate = importance_estimate(log_weights)
    return (estimate.ess < efficiency * len(log_weights)) | (estimate.pareto_k > PARETO_K_LIMIT)


def score(log_weights: Tensor) -> Tensor:
    """Effective draws; weights that cannot be trusted (Pareto k) count for little."""
    estimate = importance_estimate(log_weights)
    trusted = torch.where(estimate.pareto_k <= PARETO_K_LIMIT, 1.0, 0.01)
    return estimate.ess * trusted
