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

from .importance import (
    PARETO_K_LIMIT,
    effective_sample_size,
    finite_or_zero_weight,
    importance_estimate,
)
from .mixture import UNUSED, StudentMixture, fit_student_mixture
from .modes import located_mixture, tempered_weights
from .proposals import Proposal, Refinement, Sampled, Weighted

Target = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
MIN_PILOT = 100
PILOT_SHARE = 0.1
MAX_DRAWS = 400_000  # of all individuals that are sampled together
# A pilot with fewer effective draws says too little about a covariance: the modes are climbed to.
THIN = 20.0
GUIDE_SHARE, POPULATION_SHARE, STRETCHED_SHARE = 0.05, 0.05, 0.1
# Efficiency (effective share of the draws) from which a guide is good, and fair.
GOOD, FAIR = 0.8, 0.5
STILL_FAIR = 0.35  # of a mixture, when the population has moved
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
                found = self._from_guide(num_draws, rows, generator)
                none = torch.zeros(len(rows), dtype=torch.bool)
                parts.append(Sampled(found, Refinement(none, _no_mixture(found))))
        whole = zip(*(vars(p.weighted).values() for p in parts), strict=True)
        mixtures = zip(*(vars(p.refinement.mixture).values() for p in parts), strict=True)
        refined = torch.cat([p.refinement.refined for p in parts])
        mixture = StudentMixture(*(torch.cat(x) for x in mixtures))
        return Sampled(Weighted(*(torch.cat(x, 1) for x in whole)), Refinement(refined, mixture))

    def _sample_rows(
        self, num_draws: int, rows: Tensor, generator: Generator, known: Refinement | None
    ) -> Sampled:
        if known is not None:
            return self._sample_again(num_draws, rows, generator, known)
        num_pilot = max(MIN_PILOT, round(PILOT_SHARE * num_draws))
        pilot = self._from_guide(num_pilot, rows, generator)
        bad = _poor(pilot.log_weights, GOOD)
        good = (~bad).nonzero()[:, 0]
        result, mixture = _empty(num_draws, len(rows), pilot), _no_mixture(pilot)
        if len(good):
            found = self._from_guide(num_draws, rows[good], generator)
            result.put(good, found)
            bad[good] = _poor(found.log_weights, FAIR)
        self._mend(result, mixture, bad, pilot, rows, generator)
        return Sampled(result, Refinement(bad, mixture))

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
                self._from_mixture(known.mixture.take(mine), num_draws, rows[mine], generator, True)
                if refined
                else self._from_guide(num_draws, rows[mine], generator)
            )
            result = _empty(num_draws, len(rows), found) if result is None else result
            result.put(mine, found)
        assert result is not None
        wanted = torch.where(known.refined, STILL_FAIR, FAIR)
        mixture = StudentMixture(*(x.clone() for x in vars(known.mixture).values()))
        bad = _poor(result.log_weights, wanted)
        bent = (
            bad & known.refined & (effective_sample_size(result.log_weights) >= THIN)
        ).nonzero()[:, 0]
        if len(bent):  # shaped anew by the weights, with all its modes
            adapted = _fitted(result.take(bent), 0, generator, mixture.take(bent))
            mixture.put(bent, adapted)
            found = self._from_mixture(adapted, num_draws, rows[bent], generator, True)
            result.put(bent, found)
            bad[bent] = _poor(found.log_weights, STILL_FAIR)
        self._mend(result, mixture, bad, result, rows, generator)
        return Sampled(result, Refinement(known.refined | bad, mixture))

    def _mend(
        self,
        result: Weighted,
        mixture: StudentMixture,
        bad: Tensor,
        pilot: Weighted,
        rows: Tensor,
        generator: Generator,
    ) -> None:
        """Refine the bad ones, from weighted draws that are not used again; in place."""
        left = bad.nonzero()[:, 0]
        if len(left):
            num_draws = len(result.draws)
            found, adapted = self._refine(pilot.take(left), rows[left], num_draws, generator)
            result.put(left, found)
            mixture.put(left, adapted)

    def _from_guide(self, num_draws: int, rows: Tensor, generator: Generator) -> Weighted:
        draws, log_proposal = self.proposal.draw(num_draws, rows, generator)
        return self._weigh(draws, log_proposal, rows)

    def _weigh(self, draws: Tensor, log_proposal: Tensor, rows: Tensor) -> Weighted:
        log_weights = finite_or_zero_weight(self.target(draws, rows) - log_proposal)
        return Weighted(draws, log_proposal, log_weights)

    def _refine(
        self, pilot: Weighted, rows: Tensor, num_draws: int, generator: Generator
    ) -> tuple[Weighted, StudentMixture]:
        """Adapt a mixture on small batches, draw from it; more components where that is poor."""
        thin = effective_sample_size(pilot.log_weights) < THIN
        best, mixtures = _empty(num_draws, len(rows), pilot), _no_mixture(pilot)
        for picked, located in ((~thin, False), (thin, True)):
            where = picked.nonzero()[:, 0]
            if len(where):
                adapt = self._locate if located else self._adapt
                mixture = adapt(pilot.take(where), rows[where], num_draws, generator)
                mixtures.put(where, mixture)
                best.put(
                    where,
                    self._from_mixture(mixture, num_draws, rows[where], generator, located),
                )
        self._improve(best, mixtures, rows, thin, generator)
        return best, mixtures

    def _improve(
        self,
        best: Weighted,
        mixtures: StudentMixture,
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
                known = mixtures.take(active) if stretch else None
                mixture = _fitted(best.take(active), num_components, generator, known)
                if factor > 1:
                    size = factor * num_draws
                    many = self._from_mixture(mixture, size, rows[active], generator, stretch)
                    mixture = _fitted(many, num_components, generator, known)
                found = self._from_mixture(mixture, num_draws, rows[active], generator, stretch)
                better = _score(found.log_weights) > _score(best.log_weights[:, active])
                best.put(active[better], found.take(better))
                mixtures.put(active[better], mixture.take(better))

    def _adapt(
        self, pilot: Weighted, rows: Tensor, num_draws: int, generator: Generator
    ) -> StudentMixture:
        """One component, fitted to the pilot and once more to its own draws."""
        mixture = _fitted(pilot, 1, generator)
        return _fitted(self._from_mixture(mixture, len(pilot.draws), rows, generator), 1, generator)

    def _locate(
        self, pilot: Weighted, rows: Tensor, num_draws: int, generator: Generator
    ) -> StudentMixture:
        """The mixture around the modes; more effort where more draws are wanted."""
        num_walked = min(200, max(60, num_draws // 10))

        def target(points: Tensor) -> Tensor:
            apart = points.reshape(-1, len(rows), points.shape[-1])
            return self.target(apart, rows).reshape(points.shape[:-1])

        return located_mixture(target, pilot.draws, pilot.log_weights, generator, num_walked)

    def _from_mixture(
        self,
        mixture: StudentMixture,
        num_draws: int,
        rows: Tensor,
        generator: Generator,
        stretch: bool = False,
    ) -> Weighted:
        """Draws of the deterministic mixture of Student-t mixture, guide and population; where the
        guide was far too wide, also of a stretched mixture.
        """
        with_guide = self.proposal.has_density
        num_guide = round(GUIDE_SHARE * num_draws) if with_guide else 0
        num_stretched = round(STRETCHED_SHARE * num_draws) if stretch else 0
        num_population = round(POPULATION_SHARE * num_draws)
        num_mixture = num_draws - num_guide - num_stretched - num_population
        parts = [mixture.draw(num_mixture, generator)]
        if num_guide:
            parts.append(self.proposal.draw(num_guide, rows, generator)[0])
        population = self.population(max(num_population, 50), rows, generator)
        parts.append(population[:num_population])
        terms: list[tuple[int, Callable[[Tensor], Tensor]]] = [
            (num_population, lambda x: self.log_population(x, rows)),
            (num_mixture, mixture.log_prob),
        ]
        if num_guide:
            terms.append((num_guide, lambda x: self.proposal.log_prob(x, rows)))
        if num_stretched:
            stretched = mixture.stretched(population.std(0))
            parts.append(stretched.draw(num_stretched, generator))
            terms.append((num_stretched, stretched.log_prob))
        draws = torch.cat(parts)
        known = [
            math.log(num / num_draws) + log_prob(draws).nan_to_num(-math.inf, math.inf, -math.inf)
            for num, log_prob in terms
        ]
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


def _no_mixture(like: Weighted) -> StudentMixture:
    """Room for a mixture of each individual."""
    num, d = like.draws.shape[1:]
    eye = torch.eye(d, dtype=like.draws.dtype, device=like.draws.device)
    return StudentMixture(
        like.draws.new_full((num, MAX_COMPONENTS), UNUSED),
        like.draws.new_zeros(num, MAX_COMPONENTS, d),
        eye.repeat(num, MAX_COMPONENTS, 1, 1),
    )


def _poor(log_weights: Tensor, efficiency: float | Tensor) -> Tensor:
    estimate = importance_estimate(log_weights)
    return (estimate.ess < efficiency * len(log_weights)) | (estimate.pareto_k > PARETO_K_LIMIT)


def _score(log_weights: Tensor) -> Tensor:
    """Effective draws; weights that cannot be trusted (Pareto k) count for little."""
    estimate = importance_estimate(log_weights)
    trusted = torch.where(estimate.pareto_k <= PARETO_K_LIMIT, 1.0, 0.01)
    return estimate.ess * trusted
