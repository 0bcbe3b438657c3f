r"""Last steps for individuals whose weights are unreliable after the refinement.

First, the refinement is repeated from new draws of the guide, because a second run with new random
numbers often finds what the first one missed. Then the individuals with the fewest effective draws
get a chain of NUTS, which shows where the posterior lies. A mixture is fitted to the chain, and the
final draws come from this mixture, so that the marginal likelihood and Pareto k keep their meaning
(decision 032). The new draws replace the old ones only where their weights are better.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .importance_weights import importance_estimate
from .nuts_chain import nuts_draws
from .refinement_stages import better_draws, refined_draws
from .sampler import Sampler
from .sampling_stage import Stage
from .weight_quality import unreliable
from .weighted_draws import Sampled, Weighted
from .weighted_fits import guide_mixture, mixture_of_equal, mixture_of_weighted


@dataclass(frozen=True)
class LastStepSettings:
    r"""Effort of the last steps.

    Args:
        num_pilot_draws: Draws of the guide that the repeated refinement starts from: four times the
            usual pilot.
    """

    num_pilot_draws: int = 400


LAST_STEPS = LastStepSettings()


def improve_unreliable(
    sampler: Sampler,
    sampled: Sampled,
    generator: Generator,
    max_chains: int,
) -> Sampled:
    r"""Better draws of individuals whose weights are unreliable.

    Args:
        sampler: The sampler that made the draws.
        sampled: The draws.
        generator: Source of randomness.
        max_chains: Largest number of chains of NUTS.
    """
    rows = unreliable_rows(sampled.weighted)
    if len(rows) == 0:
        return sampled
    num_draws = len(sampled.weighted.draws)
    rows = rows[: sampler.settings.max_rows // num_draws + 1]
    sampled = refine_from_new_pilot(sampler, sampled, rows, generator)
    rows = unreliable_rows(sampled.weighted)[:max_chains]
    return draw_from_chains(sampler, sampled, rows, generator)


def unreliable_rows(weighted: Weighted) -> Tensor:
    """Individuals whose weights are unreliable, those with the fewest effective draws first."""
    estimate = importance_estimate(weighted.log_weights)
    rows = unreliable(estimate, len(weighted.draws)).nonzero()[:, 0]
    return rows[estimate.ess[rows].argsort()]


def refine_from_new_pilot(
    sampler: Sampler, sampled: Sampled, rows: Tensor, generator: Generator
) -> Sampled:
    """The draws, in which some individuals are refined once more where that is better."""
    pilot = sampler.from_proposal(LAST_STEPS.num_pilot_draws, rows, generator)
    guide = guide_mixture(pilot.draws, generator)
    part = sampled.refinement.take(rows).with_guides(torch.arange(len(rows)), guide)
    num_draws = len(sampled.weighted.draws)
    new = refined_draws(sampler, part, pilot, rows, num_draws, generator)
    refinement = new.refinement.at(Stage.MIXTURE)
    return better_draws(sampled, rows, new._replace(refinement=refinement))


def draw_from_chains(
    sampler: Sampler, sampled: Sampled, rows: Tensor, generator: Generator
) -> Sampled:
    r"""Draws from mixtures that are fitted to chains of NUTS, where they are better.

    Args:
        sampler: The sampler that made the draws.
        sampled: The draws.
        rows: The individuals. Those whose density has no gradient get no chain.
        generator: Source of randomness.
    """
    for row in rows.unsqueeze(1):
        new = _draws_from_chain(sampler, sampled.take(row), row, generator)
        if new is not None:
            sampled = better_draws(sampled, row, new)
    return sampled


def _draws_from_chain(
    sampler: Sampler, current: Sampled, row: Tensor, generator: Generator
) -> Sampled | None:
    """Draws of one individual; None where there is no chain."""
    weighted, part = current
    scale = mixture_of_weighted(weighted, 1, generator).scale_trils[0, 0]

    def log_density(point: Tensor) -> Tensor:
        return sampler.target(point.reshape(1, 1, -1), row)[0, 0]

    start = weighted.draws[weighted.log_weights[:, 0].argmax(), 0]
    chain = nuts_draws(log_density, start, scale, generator)
    if chain is None:
        return None
    first = torch.zeros(1, dtype=torch.long)
    num_components = sampler.settings.max_components
    mixture = mixture_of_equal(chain.unsqueeze(1), num_components, generator)
    if not bool(part.refined):  # the draws come from the guide
        part = part.with_guides(first, guide_mixture(weighted.draws, generator))
    part = part.with_mixtures(first, mixture)
    drawn = sampler.from_mixture(part, len(weighted.draws), row, generator)
    return Sampled(drawn, part.at(Stage.CHAIN))
