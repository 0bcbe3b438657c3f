r"""Results as ArviZ data: ``InferenceData`` with ArviZ 0.x, ``DataTree`` with ArviZ 1.x.

Dimensions are ``chain, draw``, the plates of the program (``individual`` with the labels of the
data) and, for observations, a flat ``obs_id`` over what was recorded (with the individual and the
time of each as coordinates), because cells that were not recorded break ArviZ's statistics. Draws
are independent: there is one chain, ``r_hat`` means nothing, and ESS and Pareto k per individual
stand in ``sample_stats``.
"""

import hashlib
import inspect
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray
from torch import Generator, Tensor

from ..cohort import Cohort
from ..model import ModelStructure, Population, individual_prior_terms, value_log_probs
from ..numerics.cholesky import factored
from ..population.amortized_mcmc import AmortizedMCMC
from ..population.fit_result import PopulationFit
from ..population.population_posterior import PopulationDraws
from ..runtime.arguments import check_count, check_is
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import IndividualPosteriors
from .calibration_result import Calibration

with warnings.catch_warnings():  # ArviZ 0.x announces its next version whenever it is imported
    warnings.simplefilter("ignore", FutureWarning)
    import arviz

INDIVIDUAL = "individual"
Groups = dict[str, xarray.Dataset]


def to_arviz(
    result: PopulationFit | IndividualPosteriors | PopulationDraws | AmortizedMCMC | Calibration,
    *,
    num_draws: int = 1000,
    num_prior_draws: int = 200,
    seed: int = 0,
) -> Any:
    r"""Export a fit, individual posteriors, posterior draws of the population, or a calibration.

    Args:
        result: A population fit, whose population parameters are drawn from their normal
            approximation in unconstrained coordinates; individual posteriors, whose population is
            fixed; draws of :func:`~pyro_amortized.population.population_posterior.sample_population` or
            an
            :class:`~pyro_amortized.AmortizedMCMC` that ran, with individual parameters that carry
            the population's uncertainty; or a calibration.
        num_draws: Number of equally weighted draws; draws of the population are all exported.
        num_prior_draws: Draws of the groups ``prior`` and ``prior_predictive``; 0 leaves them out.
        seed: Their seed.

    Returns:
        Groups ``posterior``, ``posterior_predictive``, ``prior``, ``prior_predictive``,
        ``log_prior`` (by site), ``log_likelihood``, ``sample_stats``, ``observed_data`` and
        ``constant_data``. ``log_likelihood`` holds log p(y_ij | phi_i, c) per observation under
        the name of its series (``arviz.loo(data, var_name="y")``, LOO-PIT) and their sums
        ``individual_log_likelihood`` per individual. For draws of the population it holds the
        *marginal* log p(y_i | Psi) per individual alone: ``arviz.loo(data)`` and
        ``arviz.compare`` then leave out one individual at a time. ``sample_stats`` has log p(y_i,
        phi_i), log q and the log weight of every draw, and ESS, Pareto k and log marginal
        likelihood per individual. A calibration gives ``prior_sbc`` (true values),
        ``posterior`` (means) and ``sample_stats`` (ranks and levels, raw and corrected). Every
        group's attributes name the model and a hash of its source, the estimator, the seed, and
        the versions of this library, torch and Pyro.
    """
    known = (PopulationFit, IndividualPosteriors, PopulationDraws, AmortizedMCMC, Calibration)
    check_is("result", result, known, "pass what the library's functions give.")
    check_count("num_draws", num_draws)
    check_count("num_prior_draws", num_prior_draws, least=0)
    if isinstance(result, Calibration):
        return _contained(_calibration_groups(result), {"seed": seed})
    if isinstance(result, AmortizedMCMC):
        result = result.draws
    generator = make_generator(seed)
    if isinstance(result, PopulationDraws):
        structure, cohort = result.fit.structure, result.fit.cohort
        groups = _population_groups(result, generator)
    else:
        individuals = result.individuals if isinstance(result, PopulationFit) else result
        structure, cohort = individuals.structure, individuals.cohort
        groups = _individual_groups(individuals, num_draws, generator)
        if isinstance(result, PopulationFit):
            vectors = _normal_draws(result, num_draws, generator)
            population = structure.constrain_population(vectors)
            both = {**groups["posterior"].data_vars, **_sites(structure, population).data_vars}
            groups["posterior"] = groups["posterior"].assign(both)
            found = _sites(structure, _log_priors(structure, cohort, vectors))
            groups["log_prior"] = groups["log_prior"].assign(found.data_vars)
    if num_prior_draws:
        groups |= _prior_groups(structure, cohort, num_prior_draws, generator)
    attributes = {"estimator": structure.estimator, "seed": seed} | _model(structure)
    return _contained(groups | _data_groups(cohort, structure), attributes)


# Groups.


def _individual_groups(
    individuals: IndividualPosteriors, num_draws: int, generator: Generator
) -> Groups:
    """All that depends on the draws of the individuals, at one population."""
    structure, cohort = individuals.structure, individuals.cohort
    population = individuals.population
    picked, place = individuals.resampled_with_places(num_draws, generator)
    values = structure.constrained_draws(cohort, picked, population)
    with torch.no_grad():
        density = structure.log_density(cohort, picked, population)
        single = value_log_probs(structure, cohort, picked, population)
        predicted = structure.predict_draws(cohort, picked, population, generator)
        prior = individual_prior_terms(structure, cohort, picked, population)
    masks = _masks(cohort, structure)
    single = {n: x[:, masks[n]] for n, x in single.items()}
    log_likelihood = _observations(single, cohort, draws=True)
    whole = _of_individuals({"individual_log_likelihood": density.observation}, cohort)
    own = {
        "log_p": sum(density),
        "log_q": individuals.log_proposal.gather(0, place),
        "log_weight": individuals.log_weights.gather(0, place),
    }
    estimate = individuals.estimate
    fixed = {"ess": estimate.ess, "pareto_k": estimate.pareto_k, "log_marginal": estimate.log_mean}
    stats = _of_individuals(own, cohort)
    stats = stats.assign(_of_individuals(fixed, cohort, draws=False).data_vars)
    return {
        "posterior": _of_sites(structure, values, cohort),
        "posterior_predictive": _observations(
            {n: predicted[n][:, masks[n]] for n in masks}, cohort, draws=True
        ),
        "log_likelihood": log_likelihood.assign(whole.data_vars).assign_coords(whole.coords),
        "log_prior": _of_sites(structure, prior, cohort, summed=True),
        "sample_stats": stats,
    }


def _population_groups(result: PopulationDraws, generator: Generator) -> Groups:
    """The same where every draw has its own population; the likelihood is the marginal one."""
    fit, structure = result.fit, result.fit.structure
    cohort, vectors = fit.cohort, result.vectors
    drawn = result.individuals(int(torch.randint(2**31, (), generator=generator)))
    populations = [structure.constrain_population(v) for v in vectors]
    parts = [
        (
            structure.constrained_draws(cohort, one[None], p),
            structure.predict_draws(cohort, one[None], p, generator),
            individual_prior_terms(structure, cohort, one[None], p),
        )
        for one, p in zip(drawn, populations, strict=True)
    ]
    values, predicted, prior = (
        {n: torch.cat([part[k][n] for part in parts]) for n in parts[0][k]} for k in range(3)
    )
    masks = _masks(cohort, structure)
    posterior = _of_sites(structure, values, cohort)
    log_prior = _of_sites(structure, prior, cohort, summed=True)
    own = _sites(structure, _log_priors(structure, cohort, vectors))
    estimate = result.individual_posteriors.estimate
    stats = {"ess": estimate.ess, "pareto_k": estimate.pareto_k}
    marginal = {"individual_log_likelihood": result.log_likelihoods()}
    return {
        "posterior": posterior.assign(_sites(structure, result.draws).data_vars),
        "posterior_predictive": _observations(
            {n: predicted[n][:, masks[n]] for n in masks}, cohort, draws=True
        ),
        "log_likelihood": _of_individuals(marginal, cohort),
        "log_prior": log_prior.assign(own.data_vars),
        "sample_stats": _of_individuals(stats, cohort, draws=False),
    }


def _prior_groups(
    structure: ModelStructure, cohort: Cohort, num_draws: int, generator: Generator
) -> Groups:
    """Draws of the program without its data."""
    parts = []
    for population in structure.draw_populations(cohort, num_draws, generator):
        rows = structure.draw_individuals(cohort, population, 1, generator)
        values = structure.constrained_draws(cohort, rows, population)
        simulated = structure.predict_draws(cohort, rows, population, generator)
        parts.append((population, values, simulated))
    population = {n: torch.stack([p[0][n] for p in parts]) for n in structure.population}
    values = {n: torch.cat([p[1][n] for p in parts]) for n in structure.individual}
    masks = _masks(cohort, structure)
    simulated = {n: torch.cat([p[2][n] for p in parts])[:, masks[n]] for n in masks}
    prior = _of_sites(structure, values, cohort)
    return {
        "prior": prior.assign(_sites(structure, population).data_vars),
        "prior_predictive": _observations(simulated, cohort, draws=True),
    }


def _data_groups(cohort: Cohort, structure: ModelStructure) -> Groups:
    """What was recorded, and the covariates."""
    masks = _masks(cohort, structure)
    observed = {n: cohort[n].values[masks[n]] for n in masks}
    return {
        "observed_data": _observations(observed, cohort, draws=False),
        "constant_data": _of_individuals(dict(cohort.covariates), cohort, draws=False),
    }


def _calibration_groups(result: Calibration) -> Groups:
    coords = {"parameter": result.names, "simulation": np.arange(len(result))}
    wide = ["simulation", "parameter"]

    def table(fields: Mapping[str, Tensor]) -> xarray.Dataset:
        variables = {n: (wide[: x.dim()], x.cpu().numpy()) for n, x in fields.items()}
        return xarray.Dataset(variables, coords=coords)

    stats = ("ranks", "raw_ranks", "levels", "raw_levels", "ess", "pareto_k", "tarp", "raw_tarp")
    found = {n: getattr(result, n) for n in stats}
    return {
        "prior_sbc": table({"truth": result.truth}),
        "posterior": table({"means": result.means, "sds": result.sds}),
        "sample_stats": table(found),
    }


def _normal_draws(fit: PopulationFit, num_draws: int, generator: Generator) -> Tensor:
    """Unconstrained draws of the population from the normal approximation of a fit."""
    known = fit.estimated
    noise = torch.zeros(num_draws, len(fit.vector), dtype=torch.float64)
    if bool(known.any()):
        scale = factored(fit.covariance[known][:, known])
        normal = torch.randn(num_draws, len(scale), generator=generator, dtype=torch.float64)
        noise[:, known] = normal @ scale.T
    return fit.vector + noise


def _log_priors(structure: ModelStructure, cohort: Cohort, vectors: Tensor) -> dict[str, Tensor]:
    """Log prior density of each population site that has one, shape ``(draw,)``."""
    found = [structure.log_priors(cohort, structure.constrain_population(v)) for v in vectors]
    return {n: torch.stack([x[n] for x in found]) for n in found[0]}


# Data sets.


def _masks(cohort: Cohort, structure: ModelStructure) -> dict[str, Tensor]:
    return {name: cohort[name].observed for name in structure.series}


def _sites(structure: ModelStructure, values: Population) -> xarray.Dataset:
    """Values of population sites, shape ``(draw, *site)``."""
    variables: dict[str, Any] = {}
    for name, value in values.items():
        array = value.detach().cpu().numpy()[None]
        dims = [f"{name}_dim_{j}" for j in range(array.ndim - 2)]
        variables[name] = (["chain", "draw", *dims], array)
    return xarray.Dataset(variables)


def _of_sites(
    structure: ModelStructure, values: Population, cohort: Cohort, summed: bool = False
) -> xarray.Dataset:
    """Values of individual sites, shape ``(draw, individual, *plates, *event)``; ``summed`` over
    everything but the individual for log densities.
    """
    variables: dict[str, Any] = {}
    for name, value in values.items():
        array = value.detach().cpu().numpy()[None]
        site = structure.individual[name]
        plates = [p[0] for p in site.plates]
        rest = array.ndim - 3
        named = [] if summed else [p for p in plates[:rest] if _fits(site, p, array)]
        named += [f"{name}_dim_{j}" for j in range(rest - len(named))]
        variables[name] = (["chain", "draw", INDIVIDUAL, *named], array)
    return xarray.Dataset(variables, coords={INDIVIDUAL: list(cohort.ids)})


def _fits(site: Any, plate: str, array: np.ndarray) -> bool:
    """Whether a plate of the site is a dimension of its own behind the individual's."""
    size = next(size for name, size, _ in site.plates if name == plate)
    return size > 1 and size in array.shape[3:]


def _of_individuals(
    values: Mapping[str, Any], cohort: Cohort, draws: bool = True
) -> xarray.Dataset:
    """Values of shape ``(draw, individual)``, or ``(individual,)``."""
    variables: dict[str, Any] = {}
    for name, value in values.items():
        array = value.detach().cpu().numpy()
        variables[name] = (
            (["chain", "draw", INDIVIDUAL], array[None]) if draws else ([INDIVIDUAL], array)
        )
    return xarray.Dataset(variables, coords={INDIVIDUAL: list(cohort.ids)})


def _observations(values: Mapping[str, Tensor], cohort: Cohort, *, draws: bool) -> xarray.Dataset:
    """Recorded values of every series along its own flat dimension."""
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for name, value in values.items():
        row, column = cohort[name].observed.nonzero()[:, :2].T.cpu()
        obs_id = "obs_id" if len(values) == 1 else f"{name}_obs_id"
        array = value.detach().cpu().numpy()
        variables[name] = (["chain", "draw", obs_id], array[None]) if draws else ([obs_id], array)
        coords[obs_id] = np.arange(len(row))
        coords[f"{name}_individual"] = (obs_id, np.array(cohort.ids)[row.numpy()])
        coords[f"{name}_time"] = (obs_id, cohort[name].times.cpu()[row, column].numpy())
    return xarray.Dataset(variables, coords=coords)


def _model(structure: ModelStructure) -> dict[str, str]:
    """Name of the program and a hash of its source (of its code where there is no source)."""
    model = structure.model
    name = getattr(model, "__qualname__", type(model).__name__)
    try:
        source = inspect.getsource(model).encode()
    except (OSError, TypeError):
        code = getattr(model, "__code__", None)
        source = code.co_code if code is not None else name.encode()
    return {"model": name, "model_hash": hashlib.sha256(source).hexdigest()[:16]}


def _contained(groups: Groups, attributes: dict[str, Any]) -> Any:
    groups = {name: group for name, group in groups.items() if group.data_vars}
    attributes = {"inference_library": "pyro_amortized"} | attributes
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
        return arviz.InferenceData(warn_on_custom_groups=False, **groups)
    return xarray.DataTree.from_dict(groups)
