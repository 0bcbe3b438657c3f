"""What of a simulated series would have been recorded, where the model describes the recording."""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from ...cohort import RECORDED, Cohort, after_dropout, as_scheduled, dropout_of
from ...model import site_values
from ...nlme import EventTimes
from ...sampling.importance_weights import resample
from ...sampling.individuals import IndividualPosteriors

SMALLEST = -1e30  # a log density of an impossible dropout, among which none is preferred


def as_would_be_recorded(
    cohort: Cohort, name: str, simulated: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    r"""Simulated values of a series, NaN where they would not be recorded.

    Args:
        cohort: The data.
        name: Name of a series of one channel.
        simulated: Values by series, shape ``(simulation, individual, time[, channel])``.

    Returns:
        The values, and the places that were planned, shape ``(individual, time)``: those of the
        data, and those after the dropout of an individual.
    """
    values = simulated[name].double()
    planned = as_scheduled(cohort)[name].observed
    event, indicator = dropout_of(cohort, name), f"{name}{RECORDED}"
    if event is not None and event in simulated:
        hidden = after_dropout(cohort[name].times, simulated[event])
        values = torch.where(hidden, torch.nan, values)
    elif indicator in simulated:
        values = torch.where(simulated[indicator] > 0.5, values, torch.nan)
    else:
        planned = cohort[name].observed
    return values, planned


def given_dropout(
    individuals: IndividualPosteriors, name: str, draws: Tensor, generator: Generator
) -> Tensor:
    r"""Draws of the individuals from the population, resampled by the density of their dropout, so
    that simulated values are those of individuals who left at this time.

    Args:
        individuals: Individual posteriors.
        name: Name of the series.
        draws: Shape ``(draw, individual, latent)``.
        generator: Source of random numbers.

    Returns:
        As many draws; the draws themselves where the series has no dropout in the model.
    """
    structure, cohort = individuals.structure, individuals.cohort
    event = dropout_of(cohort, name)
    sites = [n for n, s in structure.observed.items() if s.series == event and s.kind == "event"]
    if event is None or not sites:
        return draws

    def log_prob(distribution: EventTimes, value: Tensor) -> Tensor:
        return distribution.log_prob(value)

    density = (
        site_values(structure, cohort, draws, individuals.population, sites[0], log_prob)
        .nan_to_num(SMALLEST)
        .clamp(min=SMALLEST)
    )
    index = resample(torch.softmax(density, 0), len(draws), generator)
    return draws.gather(0, index.unsqueeze(-1).expand_as(draws))
