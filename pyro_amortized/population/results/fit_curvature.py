"""The curvature of the likelihood at the end of a fit, and parameters at a limit of support."""

import torch
from torch import Tensor

from ...numerics.laplace import (
    Curvature,
    difference_steps,
    inverted_information,
    laplace_covariance,
)
from ...sampling.individuals import IndividualPosteriors
from ..following.following_draws import score_information
from ..likelihood.expanded_likelihood import ExpandedLikelihood
from ..likelihood.likelihood_choice import likelihood_with_curvature
from ..likelihood.likelihood_interface import Likelihood
from ..search.estimation_settings import ESTIMATION
from ..search.information_check import information_check
from ..search.maximum_search import Search
from ..search.parameter_limits import Limit, limit_of
from .fit_message import flat_places


def limits_at(
    search: Search, likelihood: Likelihood, vector: Tensor, curvature: Curvature
) -> dict[int, Limit]:
    """Parameters at the limit of their support, by the index of the flat direction."""
    limits = {}
    for i, direction in enumerate(curvature.flat):
        places = flat_places(direction)
        limit = limit_of(search, likelihood, vector, places[0]) if len(places) == 1 else None
        if limit is not None:
            limits[i] = limit
    return limits


def final_curvature(
    search: Search,
    likelihood: Likelihood,
    individuals: IndividualPosteriors,
    vector: Tensor,
    held: Tensor,
    known: Curvature | None = None,
) -> tuple[Curvature, Tensor]:
    """The curvature at the estimates, and the coordinates that are held; the curvature of a
    likelihood that is not quadratic may be known with those that the rounds have held.

    Rounds hold the standard deviations that cannot be distinguished from zero where they begin. One
    that becomes so in the last round is found here: the likelihood is flat in its logarithm, and
    would also hide what the data say about the other parameters.
    """
    curvature = curvature_at(search, likelihood, individuals, vector, ~held, known)
    if curvature.is_maximum and not len(curvature.flat):
        return curvature, held
    flat = torch.zeros_like(held)
    for direction in curvature.flat:
        flat[flat_places(direction)] = True
    # On draws at the estimates: those of the last round have moved far, and become too narrow.
    vanishing, larger = search.vanishing(search.likelihood(individuals), vector, held, flat)
    if larger is not None or not bool(vanishing.any()) or bool((held | vanishing).all()):
        return curvature, held
    held = held | vanishing
    return curvature_at(search, likelihood, individuals, vector, ~held), held


def curvature_at(
    search: Search,
    likelihood: Likelihood,
    individuals: IndividualPosteriors,
    vector: Tensor,
    free: Tensor,
    known: Curvature | None = None,
) -> Curvature:
    """Covariance of the estimates on draws that were made near them. The curvature of a likelihood
    that is not quadratic may be known there.

    Some models have no gradient at draws that have moved; the expansion leaves these draws out.
    """
    parts, of_all = (individuals, search.scale, search.seed), likelihood
    likelihood, weights = likelihood_with_curvature(likelihood, *parts)
    objective = search.objective(likelihood, weights)
    if search.structure.estimator == "likelihood-free":
        step = ESTIMATION.learned_difference
        return laplace_covariance(objective, vector, search.scale, free, step)
    place = (vector, search.scale, free)
    check = information_check(search.objective, likelihood, *place, weights)
    steps = difference_steps(of_all.following.scores, search.scale)
    curvature = known or laplace_covariance(objective, *place, steps, check)
    if not likelihood.is_expanded and bool(curvature.covariance.isnan().all()):
        drawn = search.some_draws(likelihood)[0]
        expanded = ExpandedLikelihood(drawn, search.scale, following=likelihood.following)
        curvature = laplace_covariance(search.objective(expanded), *place, steps)
    scored = with_scores(search, likelihood, curvature, free)
    if scored.by_scores and likelihood is not of_all:
        # The scores of some individuals would give the standard errors of a smaller cohort.
        return with_scores(search, of_all, curvature, free)
    return scored


def with_scores(
    search: Search, likelihood: Likelihood, curvature: Curvature, free: Tensor
) -> Curvature:
    r"""The curvature; where Monte Carlo error hides it, the covariance of the scores in its place.

    The curvature on draws that move contains the squares of their slopes. Along a curved ridge the
    largest of these squares belong to draws that are not among some hundred: the information is
    then too large, and its Monte Carlo error, which is computed from the same draws, does not show
    it. The scores :math:`S_i` of the individuals at the population of the draws need no squares.
    With the covariance E of the Monte Carlo error of their sum, :math:`\sum_i S_i S_i^\top - E` is
    an estimate of the information, whose own error falls with the number of individuals. It is used
    where E is a large part of the first term in some direction. What it leaves flat is not
    determined by the data, as with the curvature.
    """
    following, num = likelihood.following, int(free.sum())
    scores, errors = following.scores[:, free], following.score_covariance[free][:, free]
    is_known = bool(errors.isfinite().all()) and bool(scores.any(0).all())
    few = len(scores) < ESTIMATION.min_scores * num
    if few or not is_known or search.criterion != "maximum likelihood":
        return curvature
    unit, root = score_information(scores)
    inverse = torch.linalg.inv(root)
    shares, axes = torch.linalg.eigh(inverse @ (errors / torch.outer(unit, unit)) @ inverse.T)
    if float(shares[-1]) < ESTIMATION.max_noise_share:
        return curvature
    flat = root.T @ (curvature.flat[:, free] * search.scale[free] * unit).T
    noise = (axes.T @ flat).square().T @ shares / flat.square().sum(0)
    if bool((noise > ESTIMATION.max_flat_noise).any()):  # the scores do not determine it either
        return curvature
    kept = (1 - shares).clamp(min=1 - ESTIMATION.max_flat_noise)
    half = inverse.T @ axes / kept.sqrt() / unit.unsqueeze(1)
    back = torch.linalg.inv(half) * search.scale[free]
    steps = difference_steps(scores, search.scale[free])
    found = inverted_information(back.T @ back, search.scale[free], difference=steps)
    covariance = torch.full_like(curvature.covariance, torch.nan)
    covariance[free.unsqueeze(0) & free.unsqueeze(1)] = found.covariance.flatten()
    flat = covariance.new_zeros(len(found.flat), len(free))
    flat[:, free] = found.flat
    return Curvature(covariance, found.is_maximum, flat, True)
