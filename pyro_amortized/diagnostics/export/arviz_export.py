r"""Export of results to ArviZ: ``InferenceData`` with ArviZ 0.x, ``DataTree`` with ArviZ 1.x.

Dimensions are ``chain, draw``, the plates of the model (``individual`` with the labels of the data)
and, for observations, ``obs_id`` over the recorded values. Draws are independent: there is one
chain, and R-hat has no meaning. ESS and Pareto k of each individual are in ``sample_stats``.
"""

import hashlib
import inspect
import warnings
from importlib.metadata import version
from typing import Any, get_args

import numpy as np
import xarray

from ...applications import Simulation
from ...model import ModelStructure
from ...population.amortized_mcmc import AmortizedMCMC
from ...population.posterior.population_posterior import PopulationDraws
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_count, check_is
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..guide_calibration.calibration_result import Calibration
from .arviz_groups import (
    Groups,
    calibration_groups,
    data_groups,
    fit_groups,
    individual_groups,
    population_groups,
    prior_groups,
    simulation_groups,
)

with warnings.catch_warnings():  # ArviZ 0.x warns of changes in version 1 when it is imported
    warnings.simplefilter("ignore", FutureWarning)
    import arviz

AnyResult = (
    PopulationFit
    | IndividualPosteriors
    | PopulationDraws
    | AmortizedMCMC
    | Calibration
    | Simulation
)


def to_arviz(
    result: AnyResult,
    *,
    num_draws: int = 1000,
    num_prior_draws: int = 200,
    seed: int = 0,
) -> Any:
    r"""Export a fit, individual posteriors, posterior draws of the population, or a calibration.

    Args:
        result: One of the following. A population fit: its population parameters are drawn from
            their normal approximation in unconstrained coordinates. Individual posteriors: their
            population parameters are fixed. Draws of
            :func:`~pyro_amortized.population.posterior.population_posterior.sample_population`, or
            an :class:`~pyro_amortized.AmortizedMCMC` that was run: their individual parameters
            carry the uncertainty of the population. A calibration. A simulation under regimens.
        num_draws: Number of equally weighted draws. Draws of the population are all exported.
        num_prior_draws: Number of draws of the groups ``prior`` and ``prior_predictive``; 0 leaves
            the groups out.
        seed: Seed of all draws.

    Returns:
        Groups ``posterior``, ``posterior_predictive``, ``prior``, ``prior_predictive``,
        ``log_prior`` (by site), ``log_likelihood``, ``sample_stats``, ``observed_data`` and
        ``constant_data``. ``log_likelihood`` holds log p(y_ij | phi_i, c) of each observation under
        the name of its series (``arviz.loo(data, var_name="y")``, LOO-PIT) and their sums
        ``individual_log_likelihood`` per individual. For draws of the population it holds the
        *marginal* log p(y_i | Psi) of each individual alone: ``arviz.loo(data)`` and
        ``arviz.compare`` then leave out one individual at a time. An
        :class:`~pyro_amortized.AmortizedMCMC` has both, ``arviz.loo(data, var_name="y")`` for
        observations and ``var_name="individual_log_likelihood"`` for individuals. ``sample_stats``
        has log p(y_i, phi_i), log q and the log weight of every draw, and ESS, Pareto k and log
        marginal likelihood of each individual. A calibration gives ``prior_sbc`` (true values),
        ``posterior`` (means and standard deviations) and ``sample_stats`` (ranks and levels, raw
        and corrected). A simulation gives ``predictions``, with the dimensions ``chain, draw,
        regimen, individual, time``. The attributes of every group name the model and a hash of
        its source, the estimator, the seed, and the versions of this library, torch and Pyro.

    Raises:
        SettingError: ``result`` is of another class, or a number is outside its range.
    """
    known = get_args(AnyResult)
    check_is("result", result, known, "pass a result of one of these classes.")
    check_count("num_draws", num_draws)
    check_count("num_prior_draws", num_prior_draws, least=0)
    if isinstance(result, Calibration):
        return _arviz_data(calibration_groups(result), {"seed": seed})
    if isinstance(result, Simulation):
        return _arviz_data(simulation_groups(result), {"uncertainty": result.uncertainty})
    per_observation = isinstance(result, AmortizedMCMC)
    if isinstance(result, AmortizedMCMC):
        result = result.draws
    generator = make_generator(seed)
    if isinstance(result, PopulationDraws):
        structure, cohort = result.fit.structure, result.fit.cohort
        groups = population_groups(result, generator, per_observation)
    else:
        structure, cohort = result.structure, result.cohort
        groups = (
            fit_groups(result, num_draws, generator)
            if isinstance(result, PopulationFit)
            else individual_groups(result, num_draws, generator)
        )
    if num_prior_draws:
        groups |= prior_groups(structure, cohort, num_prior_draws, generator)
    attributes = {"estimator": structure.estimator, "seed": seed} | _model_attributes(structure)
    return _arviz_data(groups | data_groups(cohort, structure), attributes)


def _model_attributes(structure: ModelStructure) -> dict[str, str]:
    """Name of the model and a hash of its source, or of its code if there is no source."""
    model = structure.model
    name = getattr(model, "__qualname__", type(model).__name__)
    try:
        source = inspect.getsource(model).encode()
    except (OSError, TypeError):
        code = getattr(model, "__code__", None)
        source = code.co_code if code is not None else name.encode()
    return {"model": name, "model_hash": hashlib.sha256(source).hexdigest()[:16]}


def _arviz_data(groups: Groups, attributes: dict[str, Any]) -> Any:
    """Groups in the container of the installed version of ArviZ."""
    groups = {name: group for name, group in groups.items() if group.data_vars}
    attributes = {"inference_library": "pyro_amortized"} | attributes
    for package, label in (
        ("pyro-amortized", "inference_library"),
        ("torch", "torch"),
        ("pyro-ppl", "pyro"),
    ):
        attributes[f"{label}_version"] = version(package)
    for group in groups.values():
        for dim in ("chain", "draw"):
            if dim in group.dims:
                group.coords[dim] = np.arange(group.sizes[dim])
        group.attrs.update(attributes)
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(warn_on_custom_groups=False, **groups)
    return xarray.DataTree.from_dict(groups)
