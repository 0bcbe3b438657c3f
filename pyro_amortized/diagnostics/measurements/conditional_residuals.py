r"""Conditional weighted residuals (CWRES).

Let u be the parameters of an individual in unconstrained coordinates, :math:`\mu` and
:math:`\Omega` their mean and covariance under the population, and :math:`\hat u` their posterior
mean. The model is linearised at :math:`\hat u`,

.. math:: E = f(\hat u) - J (\hat u - \mu), \qquad
          C = J \Omega J^\top + \mathrm{diag}\, s^2(\hat u), \qquad
          \mathrm{CWRES} = C^{-1/2} (y - E) ,

where f and s are mean and standard deviation of the observations given the parameters, J is the
Jacobian of f, and :math:`C^{-1/2}` the symmetric square root. Under the right model, and as far as
the linearisation is right, they are independent and standard normal. Values at a limit of
quantification take no part.

References:
    Hooker, Staatz, Karlsson (2007), Conditional weighted residuals (CWRES): a model diagnostic for
    the FOCE method.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model import predicted_moments
from ...sampling.individuals import IndividualPosteriors
from ...sampling.posterior_centers import posterior_centers


@dataclass(frozen=True)
class LinearisationSettings:
    r"""How the Jacobian is computed.

    Args:
        step: Step of the central differences, in standard deviations of the population.
        smallest: Smallest eigenvalue of a covariance, relative to the largest.
    """

    step: float = 1e-3
    smallest: float = 1e-12


DEFAULTS = LinearisationSettings()


def conditional_weighted_residuals(
    individuals: IndividualPosteriors, series: str, draws: Tensor, used: Tensor
) -> Tensor:
    r"""The CWRES of a series.

    Args:
        individuals: Individual posteriors.
        series: Name of a series of one channel.
        draws: Draws of the individual parameters from the population, unconstrained, shape
            ``(draw, individual, latent)``, for their means and covariances.
        used: Values that take part, shape ``(individual, time)``.

    Returns:
        Shape ``(individual, time)``; NaN for the other values, and where the distribution has no
        moments.
    """
    structure, cohort = individuals.structure, individuals.cohort
    values = cohort[series].values
    result = torch.full(values.shape, torch.nan, dtype=torch.float64)
    center, mean = posterior_centers(individuals), draws.mean(0)
    steps = DEFAULTS.step * draws.std(0).clamp(min=torch.finfo(torch.float64).tiny)
    shifts = torch.diag_embed(steps).movedim(1, 0)  # (latent, individual, latent)
    places = torch.cat([center.unsqueeze(0), center + shifts, center - shifts])
    moments = predicted_moments(structure, cohort, places, individuals.population).get(series)
    if moments is None:
        return result
    prediction, sd = moments[0].unbind(-1)
    above, below = moments[1:, ..., 0].chunk(2)
    jacobian = ((above - below) / (2 * steps.T.unsqueeze(-1))).movedim(0, -1)
    expected = prediction - (jacobian @ (center - mean).unsqueeze(-1))[..., 0]
    centered = (draws - mean).movedim(0, 1)
    covariance = centered.mT @ centered / (len(draws) - 1)
    for i in range(len(cohort)):
        places_of_one = used[i].nonzero()[:, 0]
        if len(places_of_one) == 0:
            continue
        slope = jacobian[i, places_of_one]
        variance = slope @ covariance[i] @ slope.T + torch.diag(sd[i, places_of_one].square())
        deviation = (values[i].double() - expected[i])[places_of_one]
        if bool(variance.isfinite().all()):
            result[i, places_of_one] = _whitened(variance, deviation)
    return result


def _whitened(variance: Tensor, deviation: Tensor) -> Tensor:
    """The symmetric inverse square root of a covariance times a vector."""
    values, vectors = torch.linalg.eigh(variance)
    values = values.clamp(min=DEFAULTS.smallest * float(values.max()))
    return vectors @ ((vectors.T @ deviation) / values.sqrt())
