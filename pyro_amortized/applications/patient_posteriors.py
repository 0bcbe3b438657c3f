r"""Posterior draws of patients for dosing, from one or several models, again as samples arrive.

Draws of an earlier recommendation are weighted by the new samples,

.. math:: w_{ik} = p(y_i, u_{ik} \mid \Psi) / q_i(u_{ik}) ,

with the proposal density they were drawn from. Where too few of them stay effective, new ones are
drawn, beginning with the earlier mixtures.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas
import torch
from torch import Generator, Tensor

from ..cohort import Cohort, Series
from ..errors import CohortError
from ..nlme.studies import GivenCovariates, covariate_columns, given_covariates, num_rows
from ..runtime.arguments import check_is
from ..runtime.random_numbers import fork_seed
from ..sampling.importance_weights import (
    PARETO,
    finite_or_zero_weight,
    importance_estimate,
    normalized_weights,
)
from ..sampling.individual_draws import sample_individuals
from ..sampling.individuals import IndividualPosteriors
from .dose_response import Mixture, PatientDraws
from .draw_weights import DrawWeights
from .model_weights import patient_weights
from .population_source import Source
from .recipients import Occasion, seen_recipients
from .uncertain_draws import DoseUncertainty, certain_draws, uncertain_draws


@dataclass(frozen=True)
class PosteriorSettings:
    r"""Number of draws.

    Args:
        num_draws: Draws of a patient, where there are few patients.
        num_draws_many: Draws of each of many patients.
        max_total: Draws of all patients together, within these limits.
        min_effective: Smallest number of effective draws with which earlier draws are used again.
    """

    num_draws: int = 2000
    num_draws_many: int = 500
    max_total: int = 200_000
    min_effective: int = 200


SETTINGS = PosteriorSettings()
Patient = Cohort | GivenCovariates


class Earlier(NamedTuple):
    """Earlier draws of the same patients, and whether they may be used again, weighted by all
    samples; otherwise only the mixtures that were fitted to them are.
    """

    posterior: IndividualPosteriors
    use_draws: bool


def default_num_draws(num_patients: int) -> int:
    """Draws per patient, fewer where there are many patients."""
    each = SETTINGS.max_total // num_patients
    return max(SETTINGS.num_draws_many, min(SETTINGS.num_draws, each))


def patients_as_cohort(
    patient: Patient | None, source: Source, others: Collection[str] = ()
) -> Cohort:
    r"""The data of patients; covariates alone describe patients without samples.

    Args:
        patient: Data, covariates, or None.
        source: The population.
        others: Covariates that may be given although the model does not read them.

    Raises:
        SettingError: The patient is neither a cohort nor covariates, or lacks one.
        CohortError: A cohort lacks a series of the model, or has a category that the data of the
            fit do not have.
    """
    if isinstance(patient, Cohort):
        missing = [name for name in source.series if name not in patient]
        if missing:
            raise CohortError(
                f"The patients have no series {missing[0]!r} (they have {list(patient.series)}).",
                f"the series of the model: {list(source.series)}.",
                "name the series in `nlme.read_table(..., series=...)` as in the model.",
            )
        return source.named(patient)
    fix = "pass the data of patients, or their covariates: a mapping or a data frame."
    given = {} if patient is None else patient
    check_is("patient", given, (Mapping, pandas.DataFrame), fix)
    known = covariate_columns(given)
    source.check_covariates(set(known) - set(others))
    source.check_complete(set(known))
    names = {} if source.cohort is None else source.cohort.categories
    num = num_rows(known) or 1
    values = given_covariates(known, num, names)
    named = {name: names[name] for name in values if name in names}
    series = {name: _nothing(source, name, num) for name in source.series}
    return Cohort(series, None, values, categories=named)


def _nothing(source: Source, name: str, num: int) -> Series:
    """A series without recorded values, with the channels of that of the data."""
    zero = torch.zeros(num, 1, dtype=torch.float64)
    channels = () if source.cohort is None else source.cohort[name].values.shape[2:]
    values = torch.ones(num, 1, *channels, dtype=torch.float64)
    return Series(zero, values, torch.zeros_like(values, dtype=torch.bool))


class Drawing(NamedTuple):
    r"""How patients are drawn.

    Args:
        start: Begin of the regimen, as in :func:`~pyro_amortized.recommend`.
        occasion: Occasion of the regimen.
        uncertainty: What varies between the draws. Default: also the population, where its
            uncertainty is known.
        num_draws: Number of draws.
    """

    start: float | None
    occasion: Occasion
    uncertainty: DoseUncertainty | None
    num_draws: int


def patient_draws(
    source: Source,
    patients: Cohort,
    drawing: Drawing,
    earlier: Earlier | None,
    generator: Generator,
) -> tuple[PatientDraws, bool]:
    r"""Posterior draws of patients under one model, and whether earlier draws were used.

    Args:
        source: The population.
        patients: Their data.
        drawing: How they are drawn.
        earlier: Earlier draws of the same patients, or None.
        generator: Source of randomness.
    """
    recipients = (source.series, patients, drawing.start, drawing.occasion, source.cohort)
    who, data = seen_recipients(*recipients)
    posterior, used = _posterior(source, data, drawing.num_draws, earlier, generator)
    wanted = drawing.uncertainty or source.what_varies(posterior.structure)
    if wanted == "individuals":
        return PatientDraws(posterior, who, certain_draws(posterior)), used
    return PatientDraws(posterior, who, uncertain_draws(source, posterior, generator)), used


def _posterior(
    source: Source,
    data: Cohort,
    num_draws: int,
    earlier: Earlier | None,
    generator: Generator,
) -> tuple[IndividualPosteriors, bool]:
    """Draws at the estimates of the population, and whether they are the earlier ones."""
    previous = None if earlier is None else earlier.posterior
    if earlier is not None and earlier.use_draws:
        again = None
        if _same_population(earlier.posterior, source):
            again = _weighted_again(earlier.posterior, data)
        if again is not None:
            return again, True
    posterior = sample_individuals(
        source.model,
        data,
        source.estimates,
        guide=source.guide_for(data),
        num_draws=num_draws,
        seed=fork_seed(generator),
        before=previous if _same_latent(previous, source, data) else None,
        estimator=source.estimator,
    )
    return posterior, False


def _same_population(previous: IndividualPosteriors, source: Source) -> bool:
    """Whether draws belong to the model and the estimates of a source."""
    values = previous.population
    return previous.structure.model is source.model and all(
        name in values and torch.equal(values[name].to(x), x)
        for name, x in source.estimates.items()
    )


def _same_latent(previous: IndividualPosteriors | None, source: Source, data: Cohort) -> bool:
    """Whether the individual parameters have as many values as before (no further occasion)."""
    if previous is None:
        return False
    if not any(site.plates for site in previous.structure.individual.values()):
        return True
    return source.structure(data).num_latent == previous.structure.num_latent


def _weighted_again(previous: IndividualPosteriors, data: Cohort) -> IndividualPosteriors | None:
    """Earlier draws with weights by all samples, or None where too few are effective."""
    structure, draws = previous.structure, previous.unconstrained
    if previous.cohort.ids != data.ids:
        raise CohortError(
            f"The patients are {list(data.ids)[:5]}, those of `previous` "
            f"{list(previous.cohort.ids)[:5]}.",
            "the same patients in the same order.",
            "leave out `previous=`, or pass the recommendation of these patients.",
        )
    if any(site.plates for site in structure.individual.values()):
        return None  # a further occasion has parameters that were never drawn
    with torch.no_grad():
        density = structure.log_density(data, draws, previous.population)
    log_weights = finite_or_zero_weight(density.total - previous.log_proposal)
    estimate = importance_estimate(log_weights)
    needed = SETTINGS.min_effective
    if bool((estimate.ess < needed).any() | (estimate.pareto_k > PARETO.limit).any()):
        return None
    return replace(previous, cohort=data, log_weights=log_weights)


def mixture_of(parts: list[PatientDraws], prior: Tensor) -> tuple[Mixture, Tensor]:
    r"""Draws of all models together, and the weight of each model for each patient.

    Args:
        parts: Draws of each model.
        prior: Prior weights of the models, shape ``(model,)``.

    Returns:
        The draws, and weights of shape ``(model, individual)``.
    """
    shares = patient_weights(torch.stack([_log_likelihood(x) for x in parts]), prior)
    weights, groups, num_groups = [], [], 0
    for share, part in zip(shares, parts, strict=True):
        weights.append(share * normalized_weights(part.draws.log_weights))
        own = part.draws.groups
        own = torch.arange(len(weights[-1])) if own is None else own
        groups.append(own + num_groups)
        num_groups += int(own.max()) + 1
    independent = all(x.draws.groups is None for x in parts)
    both = DrawWeights(torch.cat(weights), None if independent else torch.cat(groups))
    return Mixture(tuple(parts), both), shares


def _log_likelihood(part: PatientDraws) -> Tensor:
    """Log p(y_i) of each patient, averaged over the population where this is uncertain."""
    if part.draws.groups is None:
        return part.posterior.marginal_estimate.log_mean
    return importance_estimate(part.draws.log_weights).log_mean
