"""The result of the rounds of a fit: estimates, their covariance and what is said about them."""

import torch
from torch import Tensor

from ...model import Model, Population
from ...numerics.laplace import Curvature
from ..likelihood.likelihood_estimate import summarize_weights
from ..likelihood.likelihood_interface import Likelihood
from ..likelihood.quadratic_likelihood import QuadraticLikelihood
from ..search.estimate_errors import estimate_errors
from ..search.estimation_settings import ESTIMATION
from ..search.fit_rounds import Rounds
from .fit_curvature import final_curvature, limits_at
from .fit_message import error_message, fit_message, flat_places, has_ended
from .fit_result import PopulationFit
from .quadrature_check import quadrature_message


def fit_of_rounds(model: Model, rounds: Rounds, fixed: Population) -> PopulationFit:
    """The fit, with the covariance of the estimates."""
    search, ascent, new = rounds.search, rounds.ascent, rounds.draws
    optimum, structure = ascent.optimum, search.structure
    likelihood, curvature, held = _final_curvature(rounds)
    rounds = rounds._replace(ascent=ascent._replace(held=held))
    covered = _is_covered(rounds)
    unknown = torch.full_like(curvature.covariance, torch.nan)
    covariance = curvature.covariance if covered else unknown
    limits = limits_at(search, likelihood, optimum.vector, curvature) if covered else {}
    names = structure.population_names
    flat = [flat_places(x) for i, x in enumerate(curvature.flat) if i not in limits]
    is_maximum = curvature.is_maximum or (len(limits) > 0 and not flat)
    converged = has_ended(rounds) and ascent.gain < rounds.min_gain
    parts = (search, likelihood, optimum.vector, covariance, curvature.by_scores)
    errors, changes = estimate_errors(*parts)
    message = fit_message(rounds, curvature, covered, fixed, limits) + quadrature_message(new)
    return PopulationFit(
        model=model,
        guide=search.guide,
        cohort=search.cohort,
        structure=structure,
        criterion=search.criterion,
        vector=optimum.vector,
        covariance=covariance,
        monte_carlo_errors=errors,
        standard_error_errors=changes,
        individuals=new,
        marginal=summarize_weights(new),
        converged=converged and is_maximum and covered,
        message=message + error_message(names, errors / covariance.diagonal().sqrt(), changes),
        num_rounds=rounds.num_rounds,
        seconds=0.0,  # :func:`fit_once` knows it
        search=search,
        fixed=tuple(fixed),
        undetermined=tuple(names[j] for j in range(len(names)) if any(j in x for x in flat)),
    )


def _final_curvature(rounds: Rounds) -> tuple[Likelihood, Curvature, Tensor]:
    """The likelihood that gives the standard errors, its curvature at the estimates, and the
    coordinates that are held.
    """
    search, ascent, new = rounds.search, rounds.ascent, rounds.draws
    # The draws of a large cohort were not kept, and its scores only weight the individuals whose
    # curvature is computed on the new draws.
    is_quadratic = isinstance(ascent.likelihood, QuadraticLikelihood)
    is_same = is_quadratic or ascent.gain < ESTIMATION.max_gain_of_same_draws
    likelihood = ascent.likelihood if is_same else search.likelihood(new)
    known = ascent.curvature if is_same and not is_quadratic else None
    place = (ascent.optimum.vector, ascent.held)
    curvature, held = final_curvature(search, likelihood, new, *place, known)
    if is_same and likelihood.is_expanded and not is_quadratic and not curvature.is_maximum:
        # On draws that have moved, an expansion may have no maximum where the likelihood has one.
        likelihood = search.likelihood(new)
        curvature, held = final_curvature(search, likelihood, new, *place)
    return likelihood, curvature, held


def _is_covered(rounds: Rounds) -> bool:
    """Whether the new draws cover the posteriors at the estimates, and the last round was short
    enough, so that there are standard errors.
    """
    new = rounds.draws
    min_ess = ESTIMATION.min_final_efficiency * new.num_draws
    largest_gain = max(ESTIMATION.max_final_gain, rounds.min_gain)
    return float(new.estimate.ess.median()) >= min_ess and rounds.ascent.gain < largest_gain
