r"""Groups of ArviZ data by kind of result: individuals at fixed population parameters, draws of the
population, the prior, the data, and calibrations.

Each function takes a result and gives data sets by the name of their group. The log likelihood of
individuals at fixed population parameters is :math:`\log p(y_{ij} \mid \phi_i, c)` per observation;
that of draws of the population is the marginal :math:`\log p(y_i \mid \Psi)` per individual.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import xarray
from torch import Generator, Tensor

from ...applications import Simulation
from ...cohort import Cohort
from ...model import ModelStructure, Population, individual_prior_terms, joint_runs, value_log_probs
from ...numerics.vectorized_map import AtEach
from ...population.posterior.population_draws import normal_vectors
from ...population.posterior.population_posterior import PopulationDraws
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import fork_seed
from ...runtime.solver_context import caching_here
from ...sampling.individuals import IndividualPosteriors
from ..guide_calibration.calibration_result import Calibration
from .xarray_datasets import (
    individual_dataset,
    observation_dataset,
    population_dataset,
    simulation_dataset,
    site_dataset,
)

Groups = dict[str, xarray.Dataset]
POPULATIONS_PER_CALL = 400  # whose prior densities are computed together


def fit_groups(fit: PopulationFit, num_draws: int, generator: Generator) -> Groups:
    """Individuals at the estimates, with draws of the population from the normal approximation."""
    structure, cohort = fit.structure, fit.cohort
    groups = individual_groups(fit.individuals, num_draws, generator)
    vectors = normal_vectors(fit.vector, fit.covariance, num_draws, generator)
    population = population_dataset(structure.constrain_population(vectors), structure)
    log_prior = population_dataset(_population_log_priors(structure, cohort, vectors))
    groups["posterior"] = _joined(groups["posterior"], population)
    groups["log_prior"] = _joined(groups["log_prior"], log_prior)
    return groups


def individual_groups(
    individuals: IndividualPosteriors, num_draws: int, generator: Generator
) -> Groups:
    """What depends on the draws of the individuals, at one value of the population parameters."""
    structure, cohort = individuals.structure, individuals.cohort
    population = individuals.population
    draws, place = individuals.resampled_with_places(num_draws, generator)
    values = structure.constrained_draws(cohort, draws, population)
    at_draws = _at_draws(structure, cohort, draws, population, generator)
    log_prior = individual_prior_terms(structure, cohort, draws, population)
    per_draw = {
        "log_p": at_draws.observation + at_draws.individual,
        "log_q": individuals.log_proposal.gather(0, place),
        "log_weight": individuals.log_weights.gather(0, place),
    }
    estimate = individuals.estimate
    per_individual = {
        "ess": estimate.ess,
        "pareto_k": estimate.pareto_k,
        "log_marginal": estimate.log_mean,
    }
    per_observation = observation_dataset(
        _recorded(at_draws.of_values, cohort, structure), cohort, has_draws=True
    )
    sums = {"individual_log_likelihood": at_draws.observation}
    return {
        "posterior": site_dataset(structure, values, cohort),
        "posterior_predictive": _predictive(at_draws.predicted, cohort, structure),
        "log_likelihood": _joined(
            per_observation, individual_dataset(sums, cohort, has_draws=True)
        ),
        "log_prior": site_dataset(structure, log_prior, cohort),
        "sample_stats": _joined(
            individual_dataset(per_draw, cohort, has_draws=True),
            individual_dataset(per_individual, cohort, has_draws=False),
        ),
    }


class _AtDraws(NamedTuple):
    """Log densities of the observations and of the individual parameters, shape ``(draw,
    individual)``, and by series log densities of all values and new values.
    """

    observation: Tensor
    individual: Tensor
    of_values: dict[str, Tensor]
    predicted: dict[str, Tensor]


def _at_draws(
    structure: ModelStructure,
    cohort: Cohort,
    draws: Tensor,
    population: Population,
    generator: Generator,
) -> _AtDraws:
    """What depends on the observations at draws of the individuals; dynamics are solved once."""
    parts: list[_AtDraws] = []
    for part in draws.split(structure.draws_per_call(cohort)):
        place = (structure, cohort, part, population)
        with torch.no_grad(), caching_here():
            density = structure.log_density(cohort, part, population)
            of_values = value_log_probs(*place)
            predicted = structure.predict_draws(cohort, part, population, generator)
        parts.append(_AtDraws(density.observation, density.individual, of_values, predicted))
    return _AtDraws(
        torch.cat([x.observation for x in parts]),
        torch.cat([x.individual for x in parts]),
        {n: torch.cat([x.of_values[n] for x in parts]) for n in parts[0].of_values},
        {n: torch.cat([x.predicted[n] for x in parts]) for n in parts[0].predicted},
    )


def population_groups(
    result: PopulationDraws, generator: Generator, per_observation: bool
) -> Groups:
    """The same for draws of the population: every draw of the individuals has its own population
    parameters; with the log likelihood of every observation given both, if wanted.
    """
    fit, structure = result.fit, result.fit.structure
    cohort, vectors = fit.cohort, result.vectors
    individuals = result.individuals(fork_seed(generator))
    runs = joint_runs(structure, cohort, individuals, vectors, generator)
    estimate = result.individual_posteriors.estimate
    stats = {"ess": estimate.ess, "pareto_k": estimate.pareto_k}
    marginal = {"individual_log_likelihood": result.log_likelihoods}
    log_likelihood = individual_dataset(marginal, cohort, has_draws=True)
    if per_observation:
        recorded = _recorded(runs.log_prob, cohort, structure)
        of_each = observation_dataset(recorded, cohort, has_draws=True)
        log_likelihood = _joined(of_each, log_likelihood)
    population_log_prior = population_dataset(_population_log_priors(structure, cohort, vectors))
    return {
        "posterior": _joined(
            site_dataset(structure, runs.values, cohort),
            population_dataset(result.draws, structure),
        ),
        "posterior_predictive": _predictive(runs.simulated, cohort, structure),
        "log_likelihood": log_likelihood,
        "log_prior": _joined(site_dataset(structure, runs.log_prior, cohort), population_log_prior),
        "sample_stats": individual_dataset(stats, cohort, has_draws=False),
    }


def prior_groups(
    structure: ModelStructure, cohort: Cohort, num_draws: int, generator: Generator
) -> Groups:
    """Draws of the prior, and observations simulated from them."""
    populations = structure.draw_populations(cohort, num_draws, generator)
    draws = torch.cat([structure.draw_individuals(cohort, p, 1, generator) for p in populations])
    vectors = torch.stack([structure.unconstrain_population(p) for p in populations])
    runs = joint_runs(structure, cohort, draws, vectors, generator)
    of_population = {n: torch.stack([p[n] for p in populations]) for n in structure.population}
    prior = site_dataset(structure, runs.values, cohort)
    return {
        "prior": _joined(prior, population_dataset(of_population, structure)),
        "prior_predictive": _predictive(runs.simulated, cohort, structure),
    }


def data_groups(cohort: Cohort, structure: ModelStructure) -> Groups:
    """The recorded values, and the covariates."""
    recorded = {n: cohort[n].values[cohort[n].observed] for n in structure.series}
    return {
        "observed_data": observation_dataset(recorded, cohort, has_draws=False),
        "constant_data": individual_dataset(dict(cohort.covariates), cohort, has_draws=False),
    }


def calibration_groups(result: Calibration) -> Groups:
    """True values, posterior means and standard deviations, and ranks of simulated individuals."""
    stats = ("ranks", "raw_ranks", "levels", "raw_levels", "ess", "pareto_k", "tarp", "raw_tarp")
    groups = {
        "prior_sbc": {"truth": result.truth},
        "posterior": {"means": result.means, "sds": result.sds},
        "sample_stats": {n: getattr(result, n) for n in stats},
    }
    return {n: simulation_dataset(x, result.names, len(result)) for n, x in groups.items()}


def simulation_groups(result: Simulation) -> Groups:
    """Predictions, observations and exposures of simulated individuals."""

    def stacked(values: Mapping[str, Tensor]) -> Any:
        return torch.stack([values[name] for name in result.regimens], 1).unsqueeze(0).numpy()

    dims = ("chain", "draw", "regimen", "individual")
    variables: dict[str, Any] = {"prediction": ((*dims, "time"), stacked(result.prediction))}
    if result.observation is not None:
        variables[result.quantity] = ((*dims, "time"), stacked(result.observation))
    for metric, values in result.exposures.items():
        variables[metric] = (dims, stacked(values))
    coords = {
        "regimen": list(result.regimens),
        "individual": list(result.ids),
        "time": result.times.numpy(),
    }
    return {"predictions": xarray.Dataset(variables, coords=coords)}


def _joined(first: xarray.Dataset, second: xarray.Dataset) -> xarray.Dataset:
    """The variables of two data sets whose common coordinates are equal."""
    return first.assign(second.data_vars).assign_coords(second.coords)


def _recorded(
    values: dict[str, Tensor], cohort: Cohort, structure: ModelStructure
) -> dict[str, Tensor]:
    """The recorded cells of values of shape ``(draw, individual, time[, channel])``, by series."""
    return {n: values[n][:, cohort[n].observed] for n in structure.series if n in values}


def _predictive(
    values: dict[str, Tensor], cohort: Cohort, structure: ModelStructure
) -> xarray.Dataset:
    return observation_dataset(_recorded(values, cohort, structure), cohort, has_draws=True)


def _population_log_priors(
    structure: ModelStructure, cohort: Cohort, vectors: Tensor
) -> dict[str, Tensor]:
    """Log prior density of each population site that has a prior, shape ``(draw,)``."""
    names = [n for n, s in structure.population.items() if not s.is_param]
    if not names:
        return {}
    one = cohort[:1].to(dtype=torch.float64)  # the sites do not depend on the individuals

    def terms(vector: Tensor) -> Tensor:
        of_sites = structure.log_priors(one, structure.constrain_population(vector))
        return torch.stack([of_sites[name] for name in names])

    return dict(zip(names, AtEach(terms, POPULATIONS_PER_CALL)(vectors).unbind(-1), strict=True))
