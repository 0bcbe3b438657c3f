r"""Adaptive importance sampling of many small targets, each of which is refined separately.

First, draws come from the guide. Where their weights are poor, they come from the defensive mixture

.. math:: q_i = 0.9\, t_i + 0.05\, \hat g_i + 0.05\, p(u \mid \Psi)

of a mixture of Student-t distributions :math:`t_i` that is fitted to weighted draws of this
individual, a mixture :math:`\hat g_i` in the shape of the guide, and the population. Draws that a
mixture is fitted to, or that decide something, are never used in an estimate: this would bias it
(decision 028).
"""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from .importance_weights import effective_sample_size
from .refinement_stages import indices, refined_draws
from .sampler import Sampler
from .sampling_stage import Stage
from .weight_quality import is_poor
from .weighted_draws import Refinement, Sampled, Weighted
from .weighted_fits import guide_mixture, mixture_of_weighted


def sample_targets(
    sampler: Sampler,
    num_draws: int,
    num: int,
    generator: Generator,
    refine: bool,
    known: Refinement | None = None,
) -> Sampled:
    r"""Weighted draws of ``num`` individuals, and the refinement they were made with.

    Args:
        sampler: The targets, and where their draws may come from.
        num_draws: Draws per individual.
        num: Number of individuals; they are sampled in parts of limited size.
        generator: Source of randomness.
        refine: Refine individuals whose weights are poor.
        known: A refinement of the same individuals, for instance for another population. It
            is tried first.
    """
    parts = []
    for rows in torch.arange(num).split(max(1, sampler.settings.max_rows // num_draws)):
        if not refine:
            weighted = sampler.from_proposal(num_draws, rows, generator)
            parts.append(Sampled(weighted, _no_refinement(sampler, weighted)))
        elif known is None:
            parts.append(_sample_first(sampler, num_draws, rows, generator))
        else:
            parts.append(_sample_known(sampler, num_draws, rows, generator, known.take(rows)))
    return Sampled(
        Weighted.cat([part.weighted for part in parts]),
        Refinement.cat([part.refinement for part in parts]),
    )


def _no_refinement(sampler: Sampler, like: Weighted) -> Refinement:
    settings = sampler.settings
    return Refinement.none(like, settings.max_components, settings.num_guide_components)


def _sample_first(sampler: Sampler, num_draws: int, rows: Tensor, generator: Generator) -> Sampled:
    """Draws from the guide where a pilot is good enough, else from a refinement."""
    settings = sampler.settings
    num_pilot = max(settings.min_pilot_draws, round(settings.pilot_share * num_draws))
    pilot = sampler.from_proposal(num_pilot, rows, generator)
    poor = is_poor(pilot.log_weights, settings.min_pilot_efficiency)
    good = indices(~poor)
    weighted = Weighted.without_weight(num_draws, len(rows), pilot)
    if len(good):
        drawn = sampler.from_proposal(num_draws, rows[good], generator)
        weighted = weighted.replaced(good, drawn)
        poor[good] = is_poor(drawn.log_weights, settings.min_efficiency)
    sampled = Sampled(weighted, _no_refinement(sampler, pilot))
    return _refined(sampler, sampled, poor, pilot, rows, generator)


def _sample_known(
    sampler: Sampler, num_draws: int, rows: Tensor, generator: Generator, known: Refinement
) -> Sampled:
    """Draws from a known refinement; where their weights are poor, a new refinement."""
    settings = sampler.settings
    weighted = _from_known(sampler, num_draws, rows, generator, known)
    limit = torch.where(known.refined, settings.min_known_efficiency, settings.min_efficiency)
    poor = is_poor(weighted.log_weights, limit)
    enough = effective_sample_size(weighted.log_weights) >= settings.min_effective_pilot
    refinement, adapted = known, indices(poor & known.refined & enough)
    if len(adapted):  # enough effective draws to adapt the mixture, with all its modes
        start = known.mixture.take(adapted)
        mixture = mixture_of_weighted(weighted.take(adapted), 0, generator, start)
        refinement = known.with_mixtures(adapted, mixture)
        stage = known.stage.index_fill(0, adapted, Stage.MIXTURE)
        refinement = replace(refinement, stage=stage)
        drawn = sampler.from_mixture(
            refinement.take(adapted), num_draws, rows[adapted], generator, stretch=True
        )
        weighted = weighted.replaced(adapted, drawn)
        poor[adapted] = is_poor(drawn.log_weights, settings.min_known_efficiency)
    return _refined(sampler, Sampled(weighted, refinement), poor, weighted, rows, generator)


def _from_known(
    sampler: Sampler, num_draws: int, rows: Tensor, generator: Generator, known: Refinement
) -> Weighted:
    """Draws from the guide, or from the known mixture of an individual."""
    parts = []
    for refined in (False, True):
        index = indices(known.refined if refined else ~known.refined)
        if len(index) == 0:
            continue
        part = known.take(index)
        drawn = (
            sampler.from_mixture(part, num_draws, rows[index], generator, stretch=True)
            if refined
            else sampler.from_proposal(num_draws, rows[index], generator)
        )
        parts.append((index, drawn))
    weighted = Weighted.without_weight(num_draws, len(rows), parts[0][1])
    for index, drawn in parts:
        weighted = weighted.replaced(index, drawn)
    return weighted


def _refined(
    sampler: Sampler,
    sampled: Sampled,
    poor: Tensor,
    pilot: Weighted,
    rows: Tensor,
    generator: Generator,
) -> Sampled:
    """Poor individuals are refined, from weighted draws that are not used otherwise."""
    weighted, refinement = sampled
    from_guide = indices(poor & ~refinement.refined)
    if len(from_guide):
        guide = guide_mixture(pilot.draws[:, from_guide], generator)
        refinement = refinement.with_guides(from_guide, guide)
    index = indices(poor)
    if len(index):
        part, num_draws = refinement.take(index), len(weighted.draws)
        result = refined_draws(sampler, part, pilot.take(index), rows[index], num_draws, generator)
        weighted = weighted.replaced(index, result.weighted)
        refinement = refinement.with_mixtures(index, result.refinement.mixture)
    # A new mixture may have lost a minor mode. Where there was none, none is searched again.
    num_modes = torch.where(poor & (refinement.num_modes > 1), 0, refinement.num_modes)
    stage = refinement.stage.masked_fill(poor, Stage.MIXTURE)
    return Sampled(weighted, replace(refinement, stage=stage, num_modes=num_modes))
