"""The curvature of the likelihood at the end of a fit, and parameters at a limit of support."""

import torch
from torch import Tensor

from ..numerics.laplace import DEFAULTS as LAPLACE
from ..numerics.laplace import Curvature, laplace_covariance
from ..sampling.individuals import IndividualPosteriors
from .estimate_errors import curvature_errors
from .estimation_settings import ESTIMATION
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood
from .fit_message import flat_places
from .likelihood_choice import likelihood_with_curvature
from .likelihood_interface import Likelihood
from .maximum_search import Search
from .parameter_limits import Limit, limit_of


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


def curvature_at(
    search: Search,
    likelihood: Likelihood,
    individuals: IndividualPosteriors,
    vector: Tensor,
    free: Tensor,
) -> Curvature:
    """Covariance of the estimates on draws that were made near them.

    Some models have no gradient at draws that have moved; the expansion leaves these draws out.
    """
    parts = (individuals, search.scale, search.seed)
    likelihood, weights = likelihood_with_curvature(likelihood, *parts)
    objective = search.objective(likelihood, weights)
    if search.structure.estimator == "likelihood-free":
        step = ESTIMATION.learned_difference
        return laplace_covariance(objective, vector, search.scale, free, step)
    curvature = laplace_covariance(objective, vector, search.scale, free)
    if not likelihood.is_expanded and bool(curvature.covariance.isnan().all()):
        drawn = search.some_draws(likelihood)[0]
        expanded = ExpandedLikelihood(drawn, search.scale, following=likelihood.following)
        curvature = laplace_covariance(search.objective(expanded), vector, search.scale, free)
    return with_scores(search, likelihood, curvature, vector, free)


def with_scores(
    search: Search, likelihood: Likelihood, curvature: Curvature, vector: Tensor, free: Tensor
) -> Curvature:
    r"""The curvature; where Monte Carlo error hides it, the covariance of the scores in its place.

    With the scores :math:`S_i` of the individuals and the covariance E of the Monte Carlo error of
    their sum, :math:`\sum_i S_i S_i^\top - E` is another estimate of the information. A direction
    in which it is positive, and in which the curvature differs from it by less than some Monte
    Carlo errors, is determined by the data, even if the curvature on the draws is not that of a
    maximum.
    """
    if not isinstance(likelihood, ExactLikelihood | ExpandedLikelihood):
        return curvature
    if not len(curvature.flat) or search.criterion != "maximum likelihood":
        return curvature
    following = likelihood.following
    scores, unit = following.scores[:, free], search.scale[free]
    information = scores.T @ scores - following.score_covariance[free][:, free]
    information = information * torch.outer(unit, unit)
    if not bool(information.isfinite().all()):
        return curvature
    if float(torch.linalg.eigvalsh(information)[0]) < LAPLACE.flat_information:
        return curvature
    flat = curvature.flat[:, free]
    values = torch.einsum("fp,pq,fq->f", flat, information, flat)
    directions = torch.zeros_like(curvature.flat)
    directions[:, free] = flat * unit / values.sqrt().unsqueeze(1)
    errors = curvature_errors(likelihood, vector, directions)
    # In these directions the information is 1 by the scores, and at most 0 by the curvature.
    if bool((errors * ESTIMATION.hidden_errors < 1).any()):
        return curvature
    covariance = torch.full_like(curvature.covariance, torch.nan)
    inverse = information.inverse() * torch.outer(unit, unit)
    covariance[free.unsqueeze(0) & free.unsqueeze(1)] = inverse.flatten()
    return Curvature(covariance, True, curvature.flat[:0], True)
