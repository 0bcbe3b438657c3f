r"""Residuals of events: cumulative hazards, martingale and deviance residuals, and ranks.

With the cumulative hazard H of an individual over its follow-up and its number of events N,

.. math:: \text{Cox-Snell} = H, \qquad \text{martingale} = N - H, \qquad
          \text{deviance} = \mathrm{sign}(N - H) \sqrt{2 (N \log(N / H) - (N - H))} .

With draws of the individual from its posterior, H of the right model is a censored exponential
variable. The rank of the first event under the population, :math:`1 - E\,e^{-H(t)}`, is uniform; of
an event that is only known to lie in an interval (also one without an upper end), a rank is drawn
in it. Size and course of the hazard are compared with every variable of the cohort by likelihood
ratios (:mod:`pyro_amortized.diagnostics.events.event_shapes`).

References:
    Therneau, Grambsch, Fleming (1990), Martingale-based residuals for survival models.
"""

from dataclasses import dataclass

import numpy as np
import pandas
import scipy.stats
import torch
from torch import Tensor

from ...cohort import Cohort
from ...errors import CohortError
from ...model import ModelStructure, site_values
from ...nlme import EventTimes
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..check_results import Check, check_p_values, combined_p_value
from ..result_selection import individuals_of, outcome_kinds, rows_of
from ..variables.variable_findings import check_of_findings
from .event_shapes import common_course, hazard_findings
from .immune_share import immune_share

NUM_SIMULATIONS = 1000  # draws of each individual from the population, for the ranks
NUM_DRAWS = 10  # draws of the parameters of each individual
MIN_EVENTS = 10  # fewest events whose residuals are tested
EARLY = (
    "Let the hazard depend on the variable, with a population site for its effect; for the order "
    "in the file, look for a change during the study."
)
SPREAD = (
    "The effect of the variable changes with time, so the hazards are not proportional: give the "
    "groups hazards of their own, or an effect that depends on time."
)


@dataclass(frozen=True, eq=False)
class EventResiduals:
    r"""Residuals of one series of events, by individual. Made by :func:`event_residuals`.

    Tensors have the shape ``(individual,)``. Individuals whose event was not recorded at all are
    left out.

    Args:
        series: Name of the series.
        ids: Labels of the individuals.
        times: Time of the first event, or of the end of the observation, unit of the data.
        num_events: Number of events.
        cox_snell: Cumulative hazard over the follow-up, mean over the posterior of the individual.
        martingale: Events minus cumulative hazard.
        deviance: Deviance residuals.
        pd: Rank of the first event under the population, between 0 and 1.
        drawn_cox_snell: Cumulative hazards until the first event or the end, with draws of the
            individual from its posterior, shape ``(draw, individual)``; for an interval a value in
            it.
        happened: Whether there was an event.
        bounds: Normal scores between which the rank lies, shape ``(individual, 2)``; equal where
            the time of the event is known.
    """

    series: str
    ids: tuple[str, ...]
    times: Tensor
    num_events: Tensor
    cox_snell: Tensor
    martingale: Tensor
    deviance: Tensor
    pd: Tensor
    drawn_cox_snell: Tensor
    happened: Tensor
    bounds: Tensor

    def table(self) -> pandas.DataFrame:
        """One row per individual."""
        columns = {
            "ID": list(self.ids),
            "TIME": self.times.numpy(),
            "EVENTS": self.num_events.numpy(),
            "COXSNELL": self.cox_snell.numpy(),
            "MARTINGALE": self.martingale.numpy(),
            "DEVIANCE": self.deviance.numpy(),
            "PD": self.pd.numpy(),
        }
        return pandas.DataFrame(columns)


def event_name(structure: ModelStructure, series: str | None) -> str:
    r"""The name of a series of events.

    Args:
        structure: The structure of the model.
        series: Name of the series. Default: the first series of events.

    Raises:
        CohortError: The model has no such series.
    """
    names = [name for name, kind in outcome_kinds(structure).items() if kind == "event"]
    if not names or (series is not None and series not in names):
        raise CohortError(
            f"The series {series!r} has no events." if names else "The model has no events.",
            f"a series with the distribution `nlme.EventTimes`, one of {names}.",
            "pass its name as `series=`, or use `residuals` for other series.",
        )
    return series or names[0]


def event_residuals(
    result: PopulationFit | IndividualPosteriors, *, series: str | None = None, seed: int = 0
) -> EventResiduals:
    r"""Residuals of a series of events.

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of events.
        seed: Seed of the draws.

    Raises:
        CohortError: The model has no such series of events.
        SettingError: ``result`` is of another class.
    """
    individuals, generator = individuals_of(result), make_generator(seed)
    structure, cohort = individuals.structure, individuals.cohort
    population = individuals.population
    name = event_name(structure, series)
    site = next(n for n, s in structure.observed.items() if s.series == name)

    def hazards(draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def of(distribution: EventTimes, value: Tensor) -> Tensor:
            first, total = distribution.first_event(value), distribution.total_hazard(value)
            return torch.stack([*first, total], -1)

        lower, upper, total = site_values(structure, cohort, draws, population, site, of).unbind(-1)
        return lower, upper, total

    lower, upper, total = hazards(individuals.resampled(NUM_DRAWS, generator))
    drawn = _inside(lower, upper, generator)
    of_population = structure.draw_individuals(cohort, population, NUM_SIMULATIONS, generator)
    low, high, _ = hazards(of_population)
    ranks = torch.stack([1 - torch.exp(-x).mean(0) for x in (low, high)], -1)
    pd = _rank(ranks, generator)
    known = cohort[name].observed.all(-1)
    values = cohort[name].values.double()
    number = (known & (values[..., 1] > 0)).sum(-1).double()
    cox_snell, kept = total.mean(0), known[:, 0]
    return EventResiduals(
        series=name,
        ids=tuple(i for i, x in zip(cohort.ids, kept.tolist(), strict=True) if x),
        times=values[kept, 0, 0],
        num_events=number[kept],
        cox_snell=cox_snell[kept],
        martingale=(number - cox_snell)[kept],
        deviance=_deviance(number, cox_snell)[kept],
        pd=pd[kept],
        drawn_cox_snell=drawn[:, kept],
        happened=(number > 0)[kept],
        bounds=torch.special.ndtri(ranks.clamp(1e-12, 1 - 1e-12))[kept],
    )


def _rank(ranks: Tensor, generator: torch.Generator) -> Tensor:
    """Share of a population with an earlier event, drawn where the event is not known exactly and
    the share has two ends, shape ``(individual, 2)``.
    """
    first, last = ranks.unbind(-1)
    uniform = torch.rand(first.shape, generator=generator, dtype=torch.float64)
    return first + (last - first) * uniform


def _inside(lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Hazards between two ones: exponential variables given the interval; the lower end where the
    upper one is infinite.
    """
    uniform = torch.rand(lower.shape, generator=generator, dtype=torch.float64)
    width = (upper - lower).nan_to_num(0.0, 0.0)
    inside = lower - torch.log1p(-uniform * -torch.expm1(-width))
    return torch.where(upper.isfinite(), inside, lower)


def _deviance(number: Tensor, hazard: Tensor) -> Tensor:
    martingale = number - hazard
    log_ratio = torch.xlogy(number, number / hazard.clamp(min=1e-300))
    return martingale.sign() * (2 * (log_ratio - martingale)).clamp(min=0.0).sqrt()


def event_checks(residuals: EventResiduals, cohort: Cohort) -> list[Check]:
    """The checks of the times of one series of events, and of what they have to do with the
    variables of the cohort; an empty list where there are few events.

    Args:
        residuals: Residuals of the series.
        cohort: The data of the fit.
    """
    if int(residuals.happened.sum()) < MIN_EVENTS:
        return []
    pd = residuals.pd.numpy()
    p_values = {
        "their times in the population": float(scipy.stats.kstest(pd, "uniform").pvalue),
        "their number": _number_p_value(residuals),
        "the hazards of individuals": combined_p_value(
            [_exponential_p_value(x, residuals.happened.numpy()) for x in residuals.drawn_cox_snell]
        ),
    }
    lower, upper = _population_hazards(residuals)
    exponent, p_value = common_course(lower, upper)
    label = (
        f"the course of the hazard (an exponent of the time about {exponent:.2g} times as large)"
    )
    p_values[label] = p_value
    share = immune_share(lower, upper)
    if share is not None:
        label = f"a share of about {100 * share[0]:.0f} % of the individuals that never have one"
        p_values[label] = share[1]
    finding = "The events deviate from the model in {}."
    advice = (
        "The hazard does not fit: its course over time, what it depends on, or that not all "
        "individuals are at risk."
    )
    name = f"events of {residuals.series}"
    checks = [check_p_values(name, p_values, finding, advice, "model")]
    own = rows_of(cohort, residuals.ids)
    findings = hazard_findings(lower, upper, own, cohort, (EARLY, SPREAD))
    if findings:
        checks.append(check_of_findings(f"events of {residuals.series} and variables", findings))
    return checks


def _population_hazards(residuals: EventResiduals) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative hazards of the population between which the event lies, shape ``(individual,)``;
    the upper one is infinite without an event.
    """
    lower, upper = (-torch.special.log_ndtr(-x) for x in residuals.bounds.unbind(-1))
    return lower.numpy(), torch.where(residuals.happened, upper, torch.inf).numpy()


def _number_p_value(residuals: EventResiduals) -> float:
    """P-value of the number of individuals with an event, given their first cumulative hazards,
    whose sum over the individuals is the expected number.
    """
    p_values = []
    for hazard in residuals.drawn_cox_snell:
        expected = max(float(hazard.sum()), 1e-12)
        z = (float(residuals.happened.sum()) - expected) / expected**0.5
        p_values.append(float(2 * scipy.stats.norm.sf(abs(z))))
    return combined_p_value(p_values)


def _exponential_p_value(hazard: Tensor, happened: np.ndarray) -> float:
    """P-value that censored hazards are exponential: the largest distance of the survival curve of
    the events from the exponential one, by its asymptotic distribution under
    censoring.
    """
    order = hazard.numpy().argsort(kind="stable")
    times, event = hazard.numpy()[order], happened[order]
    at_risk = np.arange(len(times), 0, -1)
    # The sum of the increments of N - H over those at risk, scaled by its own variance.
    increments = event / at_risk
    expected = np.diff(np.concatenate([[0.0], times]))
    gap = np.cumsum(increments - expected)
    scale = np.sqrt(np.cumsum(event / at_risk**2)[-1])
    if scale <= 0:
        return 1.0
    # The supremum of a Brownian motion on [0, 1] has twice the tail of a normal distribution on
    # either side.
    return float(min(1.0, 4 * scipy.stats.norm.sf(np.abs(gap).max() / scale)))
