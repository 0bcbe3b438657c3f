r"""The individual sites of a model, compared with those that a guide was trained for."""

from collections.abc import Mapping
from typing import Any

from ..errors import GuideError
from ..model import ModelStructure


def coordinates_of(sites: Mapping[str, Any]) -> dict[str, int]:
    """Number of unconstrained coordinates of each site, by name."""
    return {name: site.num_unconstrained for name, site in sites.items()}


def check_individual_sites(structure: ModelStructure, expected: Mapping[str, int]) -> None:
    r"""Raise unless a model has the individual sites that a guide was trained for.

    Args:
        structure: The structure of the model.
        expected: Number of unconstrained coordinates of each site of the guide, by name.

    Raises:
        GuideError: Names, sizes or order of the individual sites differ.
    """
    present = coordinates_of(structure.individual)
    if list(present.items()) != list(expected.items()):
        raise GuideError(
            f"The model has the individual sites {present} (name: unconstrained size).",
            f"{dict(expected)}, in this order, as in the guide's own model.",
            "keep the individual sites as they are and change only the population model, or "
            "train a new guide.",
        )
