"""The curvature of the likelihood at the end of a fit, and parameters at a limit of support."""

from torch import Tensor

from ..numerics.laplace import Curvature, laplace_covariance
from ..sampling.individuals import IndividualPosteriors
from .estimation_settings import ESTIMATION
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
    return curvature
