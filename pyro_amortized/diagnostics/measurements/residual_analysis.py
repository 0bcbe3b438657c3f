r"""Predictions and residuals of every recorded value.

With the posterior means :math:`\hat\phi_i` of the individual parameters (unconstrained) and the
typical parameters of the population,

.. math:: \mathrm{IPRED} = E[y \mid \hat\phi_i], \quad
          \mathrm{IWRES} = \frac{y - \mathrm{IPRED}}{\mathrm{sd}(y \mid \hat\phi_i)}, \quad
          \mathrm{PRED} = E[y \mid \text{typical}] .

Normalised prediction distribution errors (npde) compare the data with data simulated from the
population. The values of an individual and of its simulations are decorrelated by the mean and the
covariance of the simulations, and the rank of each value among its simulations is turned into a
quantile of the normal distribution. Under the right model npde are independent and standard normal,
also for nonlinear models. The prediction discrepancies (*pd*) are the ranks before decorrelation.
Conditional weighted residuals are those of
:mod:`~pyro_amortized.diagnostics.measurements.conditional_residuals`.

References:
    Comets, Brendel, Mentré (2008), Computing normalised prediction distribution errors to evaluate
    nonlinear mixed-effect models. Brendel et al. (2006), Metrics for external model evaluation.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas
import torch
from torch import Generator, Tensor

from ...errors import AmortizedError
from ...model import OutcomeKind, predicted_moments
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ...sampling.posterior_centers import posterior_centers
from ..dose_intervals import time_after_dose
from ..refused_data import REFUSALS
from ..result_selection import (
    check_series,
    individuals_of,
    outcome_kinds,
    recorded_at_limit,
    value_moments,
)
from .conditional_residuals import conditional_weighted_residuals
from .prediction_errors import prediction_errors
from .quantile_residuals import expected_scores, quantile_residuals
from .simulated_recording import given_dropout
from .value_frequencies import expected_frequencies
from .value_levels import LevelWeights, level_weights

NUM_SIMULATIONS = 1000  # cohorts from which means, covariances and ranks are estimated, by default
NUM_DRAWS = 10  # draws of the parameters of each individual
STRETCH = 1e-4  # relative change of the times of a derivative: a trapezoid or solver step is larger


@dataclass(frozen=True, eq=False)
class Residuals:
    r"""Predictions and residuals of the recorded values of one series. Made by :func:`residuals`.

    Tensors have one entry per recorded value, shape ``(value,)``.

    Args:
        series: Name of the series.
        ids: Label of the individual of each value.
        times: Time of each value, in the unit of the data.
        observed: The recorded values, in the unit of the data.
        censored: Whether the value is recorded at a limit of quantification.
        population: Predictions with the typical parameters of the population (PRED), same unit.
        individual: Predictions with the parameters of the individual (IPRED), same unit.
        iwres: Individual weighted residuals, no unit; NaN for a value at a limit of quantification,
            which is no observation.
        cwres: Conditional weighted residuals, no unit; NaN likewise.
        pd: Share of the simulations below the value, between 0 and 1.
        pd_scores: Normal scores of ``pd``; the expected ones where the rank lies between two ranks
            (counts, categories, values at a limit), which is no random choice.
        npde: Normalised prediction distribution errors, no unit.
        levels: Weights of the scores of the pd of an individual where all its values may be too
            high or too low, and the changes of the scores for a common factor.
        drawn_predictions: Predictions with draws of the parameters of the individual from its
            posterior, shape ``(draw, value)``, same unit.
        drawn_iwres: Weighted residuals of these, or their normal scores where the distribution is
            not normal. Those of one draw are independent and standard normal under the right model,
            also for a value at a limit, whose residual is drawn beyond it; ``iwres`` are smaller
            where a value determines its own prediction.
        drawn_slopes: Derivatives of these predictions in time, shape ``(draw, value)``, in standard
            deviations of the errors per unit of time; NaN where they are not known, and for counts
            and categories.
        frequencies: Probabilities of the values 0, 1, ... of counts and categories, means over the
            draws of the individual, shape ``(value, number)``; no columns for continuous values.
        times_after_dose: Time since the last dose, in the unit of the data; NaN before the first
            one, and without doses.
        kind: ``"continuous"``, ``"count"`` or ``"category"``. Predictions of categories are means
            of their numbers.
        has_scores: Whether ``drawn_iwres`` are normal under the right model. It is False where the
            distribution function of the values is not known.
        reads_others: Whether predictions depend on recorded values of another series, as the cause
            of an event on its time. Ranks are those among simulations of all series, so that they
            depend on such predictions also under the right model.
    """

    series: str
    ids: tuple[str, ...]
    times: Tensor
    observed: Tensor
    censored: Tensor
    population: Tensor
    individual: Tensor
    iwres: Tensor
    cwres: Tensor
    pd: Tensor
    pd_scores: Tensor
    npde: Tensor
    levels: LevelWeights
    drawn_predictions: Tensor
    drawn_iwres: Tensor
    drawn_slopes: Tensor
    frequencies: Tensor
    times_after_dose: Tensor
    kind: OutcomeKind = "continuous"
    has_scores: bool = True
    reads_others: bool = False

    def table(self) -> pandas.DataFrame:
        """One row per recorded value, with the column names of pharmacometrics."""
        columns = {
            "ID": list(self.ids),
            "TIME": self.times.numpy(),
            "DV": self.observed.numpy(),
            "CENS": self.censored.numpy(),
            "PRED": self.population.numpy(),
            "IPRED": self.individual.numpy(),
            "IWRES": self.iwres.numpy(),
            "CWRES": self.cwres.numpy(),
            "PD": self.pd.numpy(),
            "NPDE": self.npde.numpy(),
            "TAD": self.times_after_dose.numpy(),
        }
        return pandas.DataFrame(columns)


def residuals(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    num_simulations: int = NUM_SIMULATIONS,
    seed: int = 0,
) -> Residuals:
    r"""Predictions and residuals of a series.

    For values at a limit of quantification, ``pd`` and ``npde`` use a rank that is drawn at random
    among the possible ones, as for a value imputed by the model; ``iwres`` and ``cwres`` are NaN.
    Counts and categories have ranks that are drawn among those of equal values (randomised quantile
    residuals), by ``seed``.

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of the model.
        num_simulations: Number of cohorts simulated from the population.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
        SettingError: ``result`` is of another class.
    """
    individuals, generator = individuals_of(result), make_generator(seed)
    name, structure = check_series(individuals, series), individuals.structure
    cohort = individuals.cohort
    kind, observed = outcome_kinds(structure)[name], cohort[name].observed
    draws = structure.draw_individuals(cohort, individuals.population, num_simulations, generator)
    of_posterior = individuals.resampled(NUM_DRAWS, generator)
    of_data = _simulated_errors(individuals, name, draws, generator)
    at_limit = recorded_at_limit(individuals, name)
    scores = quantile_residuals(individuals, name, of_posterior, generator)
    predicted = _predictions(individuals, name, draws, of_posterior)
    iwres, drawn_iwres = predicted.weighted_residuals(cohort[name].values)
    cwres = conditional_weighted_residuals(individuals, name, draws, observed & ~at_limit)
    return Residuals(
        series=name,
        ids=tuple(cohort.ids[i] for i in observed.nonzero()[:, 0].tolist()),
        times=cohort[name].times[observed],
        observed=cohort[name].values[observed],
        censored=at_limit[observed],
        population=predicted.population[observed],
        individual=predicted.individual[observed],
        iwres=torch.where(at_limit, torch.nan, iwres)[observed],
        cwres=cwres[observed],
        **of_data._asdict(),
        drawn_predictions=predicted.drawn[:, observed],
        drawn_iwres=(drawn_iwres if scores is None else scores)[:, observed],
        drawn_slopes=_slopes(individuals, name, of_posterior, predicted.drawn_sd)[:, observed],
        frequencies=expected_frequencies(individuals, name, of_posterior, kind)[observed],
        times_after_dose=time_after_dose(cohort, name)[observed],
        kind=kind,
        has_scores=scores is not None,
        reads_others=_reads_others(individuals, name),
    )


def _reads_others(individuals: IndividualPosteriors, name: str) -> bool:
    """Whether predictions of a series change with the recorded values of the others: those of the
    individual before.
    """
    structure, cohort = individuals.structure, individuals.cohort
    others = {n: cohort[n].values.roll(1, 0) for n in structure.series if n != name}
    if not others:
        return False
    place = posterior_centers(individuals).unsqueeze(0)
    try:
        before, after = (
            predicted_moments(structure, data, place, individuals.population).get(name)
            for data in (cohort, cohort.with_values(others))
        )
    except AmortizedError:  # an event that this individual cannot have
        return False
    if before is None or after is None:
        return False
    return not torch.allclose(before, after, equal_nan=True)


class _Predictions(NamedTuple):
    """Predictions of all values ``(individual, time)`` of the typical individual, of the posterior
    means and of draws of the posterior ``(draw, individual, time)``, and the standard deviations of
    the last two.
    """

    population: Tensor
    individual: Tensor
    drawn: Tensor
    sd: Tensor
    drawn_sd: Tensor

    def weighted_residuals(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the posterior means and of the draws."""
        return (values - self.individual) / self.sd, (values - self.drawn) / self.drawn_sd


def _predictions(
    individuals: IndividualPosteriors, name: str, draws: Tensor, of_posterior: Tensor
) -> _Predictions:
    """The predictions; ``draws`` are those of the population."""
    centers = posterior_centers(individuals).unsqueeze(0)
    places = torch.cat([centers, draws.mean(0, keepdim=True), of_posterior])
    moments = value_moments(individuals, name, places)
    (individual, sd), (population, _) = (x.unbind(-1) for x in moments[:2])
    return _Predictions(population, individual, moments[2:, ..., 0], sd, moments[2:, ..., 1])


def _slopes(individuals: IndividualPosteriors, name: str, places: Tensor, sd: Tensor) -> Tensor:
    """Derivatives of the predictions in time, shape ``(draw, individual, time)``, in standard
    deviations of the errors; NaN where the program refuses other times. All times are stretched
    from the first one of the cohort, so that their order remains.
    """
    kinds, cohort = outcome_kinds(individuals.structure), individuals.cohort
    not_known = torch.full_like(sd, torch.nan)
    if kinds[name] != "continuous":
        return not_known
    first = min(float(cohort[n].times.min()) for n, kind in kinds.items() if kind != "event")
    try:
        ahead, behind = (
            value_moments(_stretched(individuals, kinds, first, 1 + h), name, places)
            for h in (STRETCH, -STRETCH)
        )
    except REFUSALS:
        return not_known
    return (ahead - behind)[..., 0] / (2 * STRETCH * (cohort[name].times.double() - first) * sd)


def _stretched(
    individuals: IndividualPosteriors, kinds: dict[str, OutcomeKind], first: float, factor: float
) -> IndividualPosteriors:
    """The individuals with other times of all values but those of events."""
    cohort = individuals.cohort.to(dtype=torch.float64)
    series = {
        n: s if kinds.get(n) == "event" else replace(s, times=first + (s.times - first) * factor)
        for n, s in cohort.series.items()
    }
    return replace(individuals, cohort=replace(cohort, series=series))


class _SimulatedErrors(NamedTuple):
    """The pd, their normal scores, the npde, and the weights of the scores."""

    pd: Tensor
    pd_scores: Tensor
    npde: Tensor
    levels: LevelWeights


def _simulated_errors(
    individuals: IndividualPosteriors, name: str, draws: Tensor, generator: Generator
) -> _SimulatedErrors:
    """The errors of the recorded values among simulations."""
    cohort = individuals.cohort
    recorded = given_dropout(individuals, name, draws, generator)
    simulated = individuals.structure.predict_draws(
        cohort, recorded, individuals.population, generator
    )
    series, values, drawn = cohort[name], cohort[name].values.double(), simulated[name].double()
    pd, npde = prediction_errors(series.values, series.observed, simulated[name], generator)
    kind = outcome_kinds(individuals.structure)[name]
    levels = level_weights(values, series.observed, drawn, kind)
    scores, observed = expected_scores(values, drawn), series.observed
    return _SimulatedErrors(pd[observed], scores[observed], npde[observed], levels.take(observed))
