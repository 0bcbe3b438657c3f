r"""Results as ArviZ data: ``InferenceData`` with ArviZ 0.x, ``DataTree`` with ArviZ 1.x.

Dimensions are ``chain, draw, individual`` and, for observations, a flat ``obs_id`` over what was
recorded (with the individual and the time of each as coordinates), because cells that were not
recorded break ArviZ's statistics. Draws are independent: there is one chain, ``r_hat`` means
nothing, and ESS and Pareto k per individual stand in ``sample_stats``.
"""

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

from ..cohort import Cohort
from ..factor import factored
from ..individual import IndividualPosteriors
from ..isolation import make_generator
from ..population import PopulationDraws
from ..result import PopulationFit

with warnings.catch_warnings():  # ArviZ 0.x announces its next version whenever it is imported
    warnings.simplefilter("ignore", FutureWarning)
    import arviz


def to_arviz(
    result: PopulationFit | IndividualPosteriors | PopulationDraws,
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Any:
    r"""Export a fit, individual posteriors, or posterior draws of the population.

    Args:
        result: A population fit, whose population parameters are drawn from their normal
            approximation in unconstrained coordinates; individual posteriors, whose population
            is fixed; or draws of :func:`~pyro_amortized.population.sample_population`, with
            individual parameters that carry the population's uncertainty, and the *marginal*
            likelihood of every individual: ``arviz.loo`` and ``arviz.compare`` then leave out one
            individual at a time.
        num_draws: Number of equally weighted draws; draws of the population are all exported.
        seed: Their seed.

    Returns:
        Groups ``posterior`` (population sites of a fit, individual sites given its estimates),
        ``posterior_predictive``, ``log_likelihood`` (log p(y_i | phi_i, c) per individual),
        ``sample_stats``, ``observed_data`` and ``constant_data``. For draws of the population
        ``log_likelihood`` is log p(y_i | Psi) per individual, and there are no predictions.
        Every group's attributes name the estimator, the seed, and the versions of this library,
        torch and Pyro.
    """
    if isinstance(result, PopulationDraws):
        return _population_container(result, seed)
    individuals = result.individuals if isinstance(result, PopulationFit) else result
    generator = make_generator(seed)
    picked = individuals.resampled(num_draws, generator)
    structure, cohort, population = (
        individuals.structure,
        individuals.cohort,
        individuals.population,
    )
    posterior: dict[str, Tensor] = dict(structure.constrained_draws(cohort, picked, population))
    dims: dict[str, list[str]] = {name: ["individual"] for name in posterior}
    if isinstance(result, PopulationFit):
        posterior |= _population_draws(result, num_draws, generator)
    with torch.no_grad():
        density = structure.log_density(cohort, picked, population).observation
        predicted = structure.predict_draws(cohort, picked, population, generator)
    estimate = individuals.estimate
    stats = {"ess": estimate.ess, "pareto_k": estimate.pareto_k, "log_marginal": estimate.log_mean}
    masks = {name: cohort[name].observed for name in structure.series}
    groups = {
        "posterior": _dataset(posterior, dims, cohort, draws=True),
        "posterior_predictive": _observations(
            {n: predicted[n][:, masks[n]] for n in masks}, cohort, draws=True
        ),
        "log_likelihood": _dataset(
            {"individual": density}, {"individual": ["individual"]}, cohort, draws=True
        ),
        "sample_stats": _dataset(stats, {n: ["individual"] for n in stats}, cohort, draws=False),
    }
    return _container(groups | _data_groups(cohort, masks), individuals.structure.estimator, seed)


def _data_groups(cohort: Cohort, masks: Mapping[str, Tensor]) -> dict[str, xarray.Dataset]:
    """What was recorded, and the covariates."""
    covariates = cohort.covariates
    return {
        "observed_data": _observations(
            {n: cohort[n].values[masks[n]] for n in masks}, cohort, draws=False
        ),
        "constant_data": _dataset(
            covariates, {n: ["individual"] for n in covariates}, cohort, draws=False
        ),
    }


def _population_container(result: PopulationDraws, seed: int) -> Any:
    fit = result.fit
    cohort, structure = fit.cohort, fit.structure
    posterior = result.individual_sites(seed)
    dims = {name: ["individual"] for name in posterior}
    likelihood = {"individual": result.log_likelihoods()}
    masks = {name: cohort[name].observed for name in structure.series}
    groups = {
        "posterior": _dataset(posterior | result.draws, dims, cohort, draws=True),
        "log_likelihood": _dataset(likelihood, {"individual": ["individual"]}, cohort, draws=True),
    }
    return _container(groups | _data_groups(cohort, masks), structure.estimator, seed)


def _population_draws(
    fit: PopulationFit, num_draws: int, generator: torch.Generator
) -> dict[str, Tensor]:
    known = ~fit.covariance.diagonal().isnan()
    noise = torch.zeros(num_draws, len(fit.vector), dtype=torch.float64)
    if bool(known.any()):
        scale = factored(fit.covariance[known][:, known])
        noise[:, known] = (
            torch.randn(num_draws, len(scale), generator=generator, dtype=torch.float64) @ scale.T
        )
    return fit.structure.constrain_population(fit.vector + noise)


def _dataset(
    values: Mapping[str, Tensor], dims: Mapping[str, list[str]], cohort: Cohort, *, draws: bool
) -> xarray.Dataset:
    variables = {}
    for name, value in values.items():
        array = value.detach().cpu().numpy()
        named = (["draw"] if draws else []) + list(dims.get(name, []))
        named += [f"{name}_dim_{j}" for j in range(array.ndim - len(named))]
        label = f"{name}_log_likelihood" if name == "individual" else name
        variables[label] = _with_chain(named, array, draws)
    coords: dict[str, Any] = {"individual": list(cohort.ids)}
    return xarray.Dataset(variables, coords=coords)


def _with_chain(dims: list[str], array: np.ndarray, draws: bool) -> tuple[list[str], np.ndarray]:
    return (["chain", *dims], array[None]) if draws else (dims, array)


def _observations(values: Mapping[str, Tensor], cohort: Cohort, *, draws: bool) -> xarray.Dataset:
    """Recorded values of every series along its own flat dimension."""
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for name, value in values.items():
        row, column = cohort[name].observed.nonzero()[:, :2].T.cpu()
        obs_id = "obs_id" if len(values) == 1 else f"{name}_obs_id"
        dims = ["draw", obs_id] if draws else [obs_id]
        variables[name] = _with_chain(dims, value.detach().cpu().numpy(), draws)
        coords[obs_id] = np.arange(len(row))
        coords[f"{name}_individual"] = (obs_id, np.array(cohort.ids)[row.numpy()])
        coords[f"{name}_time"] = (obs_id, cohort[name].times.cpu()[row, column].numpy())
    return xarray.Dataset(variables, coords=coords)


def _container(groups: dict[str, xarray.Dataset], estimator: str, seed: int) -> Any:
    groups = {name: group for name, group in groups.items() if group.data_vars}
    attributes = {"inference_library": "pyro_amortized", "estimator": estimator, "seed": seed}
    for name, label in (
        ("pyro-amortized", "inference_library"),
        ("torch", "torch"),
        ("pyro-ppl", "pyro"),
    ):
        attributes[f"{label}_version"] = version(name)
    for group in groups.values():
        for dim in ("chain", "draw"):
            if dim in group.dims:
                group.coords[dim] = np.arange(group.sizes[dim])
        group.attrs.update(attributes)
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**groups)
    return xarray.DataTree.from_dict(groups)
