r"""What is tried last for individuals whose weights cannot be trusted.

First everything once more from fresh draws of the guide: walkers that missed a ridge once seldom
miss it twice. For the worst of those still left, a chain of NUTS says where the posterior lies; a
mixture fitted to it gives the draws that estimate, as everywhere else, so that the marginal
likelihood and Pareto k keep their meaning. Either replaces what was there only where it is better.
"""

import torch
from torch import Generator, Tensor

from .adaptive_importance import (
    MAX_COMPONENTS,
    MAX_DRAWS,
    MAX_SHAPE,
    Sampler,
    fitted,
    score,
    shape_of,
)
from .importance_weights import PARETO_K_LIMIT, ImportanceEstimate, importance_estimate
from .nuts_chain import nuts_draws
from .proposals import Refinement, Sampled, Weighted
from .student_mixture import fit_student_mixture

MAX_CHAINS = 3
MIN_ESS, MIN_EFFICIENCY = 20.0, 0.1  # effective draws of an individual, and their share
NUM_PILOT = 400


def unreliable(estimate: ImportanceEstimate, num_draws: int) -> Tensor:
    r"""Individuals whose weights cannot be trusted, shape ``(individual,)``.

    Args:
        estimate: What their weights say.
        num_draws: How many there are of each.
    """
    few = estimate.ess < min(MIN_ESS, MIN_EFFICIENCY * num_draws)
    return few | ~(estimate.pareto_k <= PARETO_K_LIMIT)


def rescue(
    sampler: Sampler, drawn: Sampled, generator: Generator, max_chains: int = MAX_CHAINS
) -> list[int]:
    r"""Better draws of individuals whose weights cannot be trusted, in place.

    Args:
        sampler: What drew them.
        drawn: Their draws.
        generator: Source of randomness.
        max_chains: Chains of NUTS at most.

    Returns:
        The individuals that a chain was run for.
    """
    rows = _poor(drawn.weighted)
    if len(rows) == 0:
        return []
    refine_again(sampler, drawn, rows[: MAX_DRAWS // len(drawn.weighted.draws) + 1], generator)
    return follow_chains(sampler, drawn, _poor(drawn.weighted)[:max_chains], generator)


def _poor(weighted: Weighted) -> Tensor:
    """Those whose weights cannot be trusted, the worst first."""
    estimate = importance_estimate(weighted.log_weights)
    rows = unreliable(estimate, len(weighted.draws)).nonzero()[:, 0]
    return rows[estimate.ess[rows].argsort()]


def refine_again(sampler: Sampler, drawn: Sampled, rows: Tensor, generator: Generator) -> None:
    """Refine some individuals from fresh draws of the guide, in place where that is better."""
    pilot = sampler.from_guide(NUM_PILOT, rows, generator)
    part = drawn.refinement.take(rows)
    part.guide.put(torch.arange(len(rows)), shape_of(pilot.draws[:MAX_SHAPE], generator))
    found = sampler.refined_draws(part, pilot, rows, len(drawn.weighted.draws), generator)
    _put(drawn, rows, found, part)


def follow_chains(
    sampler: Sampler, drawn: Sampled, rows: Tensor, generator: Generator
) -> list[int]:
    r"""A mixture fitted to a chain of NUTS, in place where its draws are better.

    Args:
        sampler: What drew them.
        drawn: Their draws.
        rows: The individuals.
        generator: Source of randomness.

    Returns:
        Those that a chain was run for; the others' density has no gradient.
    """
    return [int(row) for row in rows.unsqueeze(1) if _follow_chain(sampler, drawn, row, generator)]


def _follow_chain(sampler: Sampler, drawn: Sampled, row: Tensor, generator: Generator) -> bool:
    """One of them; False where there was no chain."""
    mine = drawn.weighted.take(row)
    rough = fitted(mine, 1, generator)

    def log_density(point: Tensor) -> Tensor:
        return sampler.target(point.reshape(1, 1, -1), row)[0, 0]

    start = mine.draws[mine.log_weights[:, 0].argmax(), 0]
    chain = nuts_draws(log_density, start, rough.scale_trils[0, 0], generator)
    if chain is None:
        return False
    part, points = drawn.refinement.take(row), chain.unsqueeze(1)
    equal = torch.full(points.shape[:2], 1 / len(points), dtype=points.dtype)
    first = torch.zeros(1, dtype=torch.long)
    part.mixture.put(first, fit_student_mixture(points, equal, MAX_COMPONENTS, generator))
    if not bool(part.refined):
        part.guide.put(first, shape_of(mine.draws[:MAX_SHAPE], generator))
    _put(drawn, row, sampler.from_mixture(part, len(mine.draws), row, generator), part)
    return True


def _put(drawn: Sampled, rows: Tensor, found: Weighted, part: Refinement) -> None:
    """Put draws of some individuals, and where they come from, where they are better."""
    better = score(found.log_weights) > score(drawn.weighted.take(rows).log_weights)
    where = rows[better]
    drawn.weighted.put(where, found.take(better.nonzero()[:, 0]))
    mine = part.take(better.nonzero()[:, 0])
    drawn.refinement.mixture.put(where, mine.mixture)
    drawn.refinement.guide.put(where, mine.guide)
    drawn.refinement.refined[where] = True
