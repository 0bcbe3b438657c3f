r"""The individual posteriors and the series of a result that residuals and figures show."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..cohort import Cohort, Series
from ..errors import CohortError
from ..model import ModelStructure, OutcomeKind, at_limits, predicted_moments
from ..population.results.fit_result import PopulationFit
from ..runtime.arguments import check_is
from ..sampling.individuals import IndividualPosteriors

# Factor of the central 90 % of the values of a series from which on its axes are logarithmic: those
# of a drug over four half-lives.
MIN_SPAN = 20.0


def check_series(individuals: IndividualPosteriors, series: str | None) -> str:
    r"""The name of a series of one channel that the model observes.

    Args:
        individuals: The individual posteriors.
        series: Name of a series. Default: the first series of the model.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    structure, cohort = individuals.structure, individuals.cohort
    name = series or structure.series[0]
    if name not in structure.series or cohort[name].values.dim() != 2:
        raise CohortError(
            f"The series {name!r} cannot be shown.",
            f"a series of one channel that the model observes, one of {structure.series}.",
            "pass its name as `series=`.",
        )
    return name


def outcome_kinds(structure: ModelStructure) -> dict[str, OutcomeKind]:
    """The kind of the values of every observed series, by name."""
    return {site.series: site.kind for site in structure.observed.values()}


def value_moments(individuals: IndividualPosteriors, name: str, places: Tensor) -> Tensor:
    r"""Means and standard deviations of the values of a series given parameters.

    Args:
        individuals: The individual posteriors.
        name: Name of the series.
        places: Individual parameters, unconstrained, shape ``(draw, individual, latent)``.

    Returns:
        Shape ``(draw, individual, time, 2)``; NaN where the distribution has no moments.
    """
    structure, cohort = individuals.structure, individuals.cohort
    not_known = (len(places), *cohort[name].values.shape, 2)
    moments = predicted_moments(structure, cohort, places, individuals.population)
    return moments.get(name, torch.full(not_known, torch.nan, dtype=torch.float64))


def rows_of(cohort: Cohort, ids: Sequence[str]) -> np.ndarray:
    """Rows of individuals in their cohort, by their labels; one may occur several times."""
    index = {label: i for i, label in enumerate(cohort.ids)}
    return np.array([index[label] for label in ids], dtype=int)


def individuals_of(result: PopulationFit | IndividualPosteriors) -> IndividualPosteriors:
    r"""The individual posteriors of a result.

    Args:
        result: A fit, or individual posteriors.

    Raises:
        SettingError: The result is of another class.
    """
    fix = "pass what `fit_population` or `sample_individuals` gives."
    check_is("result", result, (PopulationFit, IndividualPosteriors), fix)
    return result.individuals if isinstance(result, PopulationFit) else result


def recorded_at_limit(individuals: IndividualPosteriors, name: str) -> Tensor:
    r"""Which recorded values of a series are limits of quantification.

    Args:
        individuals: The individual posteriors.
        name: Name of a series of one channel, from :func:`check_series`.

    Returns:
        Boolean, shape ``(individual, time)``.
    """
    cohort, means = individuals.cohort, individuals.moments()[0].unsqueeze(0)
    limits = at_limits(individuals.structure, cohort, means, individuals.population)
    observed = cohort[name].observed
    return limits[name][0] & observed if name in limits else torch.zeros_like(observed)


def spans_orders(series: Series) -> bool:
    """Whether a series needs a logarithmic axis: all values are positive, and the central 90 % of
    them span more than a factor of ``MIN_SPAN``.
    """
    values = series.values[series.observed].double()
    if series.values.dim() != 2 or len(values) == 0 or not bool((values > 0).all()):
        return False
    low, high = values.quantile(values.new_tensor([0.05, 0.95])).tolist()
    return bool(high > MIN_SPAN * low)


def values_at_limits(cohort: Cohort, name: str) -> Tensor:
    """Which values of a series are recorded as a limit of the cohort, shape of the values."""
    series = cohort[name]
    at_limit = torch.zeros_like(series.observed)
    for ending, side in (("low", -1), ("high", 1)):
        limits = f"{name}_{ending}"
        if limits in cohort.time_varying:
            limit = cohort.time_varying[limits].at(series.times)
            at_limit |= side * (series.values - limit) >= 0
    return at_limit & series.observed
