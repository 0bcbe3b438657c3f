"""Draws of the population parameters as rows of a table."""

import torch
from torch import Tensor

from ...model import ModelStructure
from ...runtime.text_table import number_text
from .reported_parameters import reported_site

LEVELS = (0.05, 0.5, 0.95)


def draws_rows(structure: ModelStructure, vectors: Tensor) -> list[tuple[str, ...]]:
    r"""Mean, standard deviation and quantiles of each parameter, as results show it.

    Args:
        structure: The population model.
        vectors: Draws, unconstrained, shape ``(draw, population)``.

    Returns:
        The heading, and a row for each parameter.
    """
    rows: list[tuple[str, ...]] = [("parameter", "mean", "sd", "5 %", "median", "95 %")]
    for name in structure.population:
        site = reported_site(structure, name)
        values = torch.stack([site.values(vector) for vector in vectors]).double()
        levels = values.quantile(values.new_tensor(LEVELS), 0)
        columns = [values.mean(0), values.std(0), *levels]
        for j, label in enumerate(site.names):
            rows.append((label, *(number_text(float(x[j])) for x in columns)))
    return rows
