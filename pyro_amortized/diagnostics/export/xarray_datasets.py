r"""Tensors of draws as xarray data sets with the dimensions of ArviZ.

Draws have the dimensions ``chain`` (of size one, because draws are independent) and ``draw``.
Individual sites add ``individual``, with the labels of the data as coordinate, and their further
plates. Observations lie on one flat dimension ``obs_id`` over the recorded values, with the
individual and the time of each value as coordinates, because cells that were not recorded would
break the statistics of ArviZ.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure

INDIVIDUAL = "individual"


def population_dataset(
    values: Mapping[str, Tensor], structure: ModelStructure | None = None
) -> xarray.Dataset:
    r"""Values of population sites.

    Args:
        values: By site, shape ``(draw, *site)``.
        structure: Structure of the model, whose labels become coordinates.
    """
    variables: dict[str, Any] = {}
    coords: dict[str, list[str]] = {}
    for name, value in values.items():
        labels = () if structure is None else structure.population[name].labels
        if value.dim() == 2 and len(labels) == value.shape[-1]:
            coords[f"{name}_dim_0"] = list(labels)
        array = value.detach().cpu().numpy()[None]
        dims = [f"{name}_dim_{j}" for j in range(array.ndim - 2)]
        variables[name] = (["chain", "draw", *dims], array)
    return xarray.Dataset(variables, coords=coords)


def site_dataset(
    structure: ModelStructure, values: Mapping[str, Tensor], cohort: Cohort
) -> xarray.Dataset:
    r"""Values of individual sites; a further plate of a site is a dimension with its name.

    Args:
        structure: Structure of the model.
        values: By site, shape ``(draw, individual, *plates, *event)``.
        cohort: The data.
    """
    variables: dict[str, Any] = {}
    coords: dict[str, list[str]] = {INDIVIDUAL: list(cohort.ids)}
    for name, value in values.items():
        array = value.detach().cpu().numpy()[None]
        num_dims = array.ndim - 3
        plates = [
            plate
            for plate, size, _ in structure.individual[name].plates[:num_dims]
            if size > 1 and size in array.shape[3:]
        ]
        others = [f"{name}_dim_{j}" for j in range(num_dims - len(plates))]
        variables[name] = (["chain", "draw", INDIVIDUAL, *plates, *others], array)
        labels = structure.individual[name].labels
        if len(others) == 1 and len(labels) == array.shape[-1]:
            coords[others[0]] = list(labels)
    return xarray.Dataset(variables, coords=coords)


def individual_dataset(
    values: Mapping[str, Tensor], cohort: Cohort, *, has_draws: bool
) -> xarray.Dataset:
    r"""Values with one entry per individual.

    Args:
        values: By name, shape ``(draw, individual)`` or, without draws, ``(individual,)``.
        cohort: The data.
        has_draws: Whether there is a dimension of draws.
    """
    variables: dict[str, Any] = {}
    for name, value in values.items():
        array = value.detach().cpu().numpy()
        array = array[None] if has_draws else array
        dims = ["chain", "draw", INDIVIDUAL] if has_draws else [INDIVIDUAL]
        variables[name] = (dims, array)
    return xarray.Dataset(variables, coords={INDIVIDUAL: list(cohort.ids)})


def observation_dataset(
    values: Mapping[str, Tensor], cohort: Cohort, *, has_draws: bool
) -> xarray.Dataset:
    r"""Recorded values of every series along a flat dimension of its own.

    Args:
        values: By series, shape ``(draw, value)`` or, without draws, ``(value,)``.
        cohort: The data.
        has_draws: Whether there is a dimension of draws.
    """
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for name, value in values.items():
        row, column = cohort[name].observed.nonzero()[:, :2].T.cpu()
        obs_id = "obs_id" if len(values) == 1 else f"{name}_obs_id"
        array = value.detach().cpu().numpy()
        dims = ["chain", "draw", obs_id] if has_draws else [obs_id]
        variables[name] = (dims, array[None] if has_draws else array)
        coords[obs_id] = np.arange(len(row))
        coords[f"{name}_individual"] = (obs_id, np.array(cohort.ids)[row.numpy()])
        coords[f"{name}_time"] = (obs_id, cohort[name].times.cpu()[row, column].numpy())
    return xarray.Dataset(variables, coords=coords)


def simulation_dataset(
    values: Mapping[str, Tensor], parameters: list[str], num_simulations: int
) -> xarray.Dataset:
    r"""Values of the simulated individuals of a calibration.

    Args:
        values: By name, shape ``(simulation,)`` or ``(simulation, parameter)``.
        parameters: Labels of the parameters.
        num_simulations: Number of simulated individuals.
    """
    dims = ["simulation", "parameter"]
    variables = {n: (dims[: x.dim()], x.cpu().numpy()) for n, x in values.items()}
    coords = {"parameter": parameters, "simulation": np.arange(num_simulations)}
    return xarray.Dataset(variables, coords=coords)
