r"""Predictions and residuals of every recorded value.

With the individual's parameters :math:`\hat\phi_i` (posterior means, unconstrained) and those that
are typical of the population,

.. math:: \mathrm{IPRED} = E[y \mid \hat\phi_i], \quad
          \mathrm{IWRES} = \frac{y - \mathrm{IPRED}}{\mathrm{sd}(y \mid \hat\phi_i)}, \quad
          \mathrm{PRED} = E[y \mid \text{typical}] .

Normalised prediction distribution errors compare with data simulated from the population: the
values of an individual and of its simulations are decorrelated by the simulations' mean and
covariance, and the rank of each value among its simulations is turned into a normal quantile. Under
the right model they are independent and standard normal, whatever the model. *pd* are the ranks
before decorrelation.

References:
    Comets, Brendel, Mentré (2008), Computing normalised prediction distribution errors to evaluate
    nonlinear mixed-effect models. Brendel et al. (2006), Metrics for external model evaluation.
"""

from dataclasses import dataclass

import numpy as np
import pandas
import torch
from torch import Generator, Tensor

from ..errors import CohortError
from ..model import at_limits, predicted_moments
from ..numerics.cholesky import factored
from ..population.fit_result import PopulationFit
from ..runtime.arguments import check_is
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import IndividualPosteriors

NUM_SIMULATIONS = 1000


@dataclass(frozen=True, eq=False)
class Residuals:
    r"""Predictions and residuals of the recorded values of one series; fields have one entry per
    recorded value, shape ``(value,)``. Made by :func:`residuals`.

    Args:
        series: Name of the series.
        ids: Label of the individual of each value.
        times: Its time.
        observed: The value.
        censored: Whether it stands at a limit of quantification.
        population: Prediction with the population's typical parameters (PRED).
        individual: Prediction with the individual's parameters (IPRED).
        iwres: Individual weighted residuals.
        pd: Share of the simulations below the value, between 0 and 1.
        npde: Normalised prediction distribution errors.
    """

    series: str
    ids: tuple[str, ...]
    times: Tensor
    observed: Tensor
    censored: Tensor
    population: Tensor
    individual: Tensor
    iwres: Tensor
    pd: Tensor
    npde: Tensor

    def table(self) -> pandas.DataFrame:
        """One row per recorded value; the columns' names are those of pharmacometrics."""
        columns = {
            "ID": list(self.ids),
            "TIME": self.times.numpy(),
            "DV": self.observed.numpy(),
            "CENS": self.censored.numpy(),
            "PRED": self.population.numpy(),
            "IPRED": self.individual.numpy(),
            "IWRES": self.iwres.numpy(),
            "PD": self.pd.numpy(),
            "NPDE": self.npde.numpy(),
        }
        return pandas.DataFrame(columns)


def check_series(individuals: IndividualPosteriors, series: str | None) -> str:
    r"""The name of a series of one channel that the model observes.

    Raises:
        CohortError: There is no such series.
    """
    structure, cohort = individuals.structure, individuals.cohort
    name = series or structure.series[0]
    if name not in structure.series or cohort[name].values.dim() != 2:
        raise CohortError(
            f"The series {name!r} cannot be shown.",
            f"a series of one channel that the model observes, of {structure.series}.",
            "pass `series=`.",
        )
    return name


def individuals_of(result: PopulationFit | IndividualPosteriors) -> IndividualPosteriors:
    """The individual posteriors of a result."""
    fix = "pass what `fit_population` or `sample_individuals` gives."
    check_is("result", result, (PopulationFit, IndividualPosteriors), fix)
    return result.individuals if isinstance(result, PopulationFit) else result


def residuals(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    num_simulations: int = NUM_SIMULATIONS,
    seed: int = 0,
) -> Residuals:
    r"""Predictions and residuals of a series.

    Values at a limit of quantification take part in ``pd`` and ``npde`` by the rank of what they
    could be (a draw below the limit), as imputation by the model asks for; their ``iwres`` is that
    of the limit.

    Args:
        result: A fit, or individual posteriors.
        series: The series. Default: the model's first.
        num_simulations: Cohorts simulated from the population.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    individuals = individuals_of(result)
    name, generator = check_series(individuals, series), make_generator(seed)
    structure, cohort, population = (
        individuals.structure,
        individuals.cohort,
        individuals.population,
    )
    own = individuals.moments()[0].unsqueeze(0)
    draws = structure.draw_individuals(cohort, population, num_simulations, generator)
    typical = draws.mean(0, keepdim=True)
    seen, values = cohort[name].observed, cohort[name].values
    moments = predicted_moments(structure, cohort, torch.cat([own, typical]), population)
    nothing = torch.full((2, *values.shape, 2), torch.nan, dtype=torch.float64)
    (individual, sd), (pred, _) = (x.unbind(-1) for x in moments.get(name, nothing))
    simulated = structure.predict_draws(cohort, draws, population, generator)[name]
    share, npde = _distribution_errors(values, seen, simulated, generator)
    limits = at_limits(structure, cohort, own, population)
    at_limit = limits[name][0] if name in limits else torch.zeros_like(seen)
    row, _ = seen.nonzero().T
    return Residuals(
        name,
        tuple(cohort.ids[i] for i in row.tolist()),
        cohort[name].times[seen],
        values[seen],
        at_limit[seen],
        pred[seen],
        individual[seen],
        ((values - individual) / sd)[seen],
        share[seen],
        npde[seen],
    )


def _distribution_errors(
    values: Tensor, seen: Tensor, simulated: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Pd and npde of recorded values. Ties (counts, values at a limit) are broken at random, by
    noise of the smallest difference between simulated values, on data and simulations alike.
    """
    num = len(simulated)
    steps = simulated.sort(0).values.diff(dim=0)
    gap = torch.where(steps > 0, steps, torch.inf).amin(0)
    gap = torch.where(gap.isfinite(), gap, 1.0)

    def dithered(x: Tensor) -> Tensor:
        return x + gap * torch.rand(x.shape, generator=generator, dtype=torch.float64)

    values, simulated = dithered(values.double()), dithered(simulated.double())
    share = (simulated < values).double().mean(0).clamp(0.5 / num, 1 - 0.5 / num)
    npde = torch.full_like(share, torch.nan)
    for i in range(len(values)):
        columns = seen[i].nonzero()[:, 0]
        if len(columns):
            npde[i, columns] = _decorrelated(
                values[i, columns], simulated[:, i, columns], share[i, columns]
            )
    return share, npde


def _decorrelated(values: Tensor, simulated: Tensor, share: Tensor) -> Tensor:
    """Npde of one individual."""
    num = len(simulated)
    mean = simulated.mean(0)
    centered = simulated - mean
    spread = factored(centered.T @ centered / num)
    if len(values) == 1:
        return torch.special.ndtri(share)
    white = torch.linalg.solve_triangular(spread, centered.T, upper=False).T
    mine = torch.linalg.solve_triangular(spread, (values - mean).unsqueeze(-1), upper=False)[:, 0]
    rank = (white < mine).double().mean(0).clamp(0.5 / num, 1 - 0.5 / num)
    return torch.special.ndtri(rank)


def eta(individuals: IndividualPosteriors, num_draws: int = 2000, seed: int = 0) -> Tensor:
    r"""Standardised conditional means of the random effects, shape ``(individual, latent)``: the
    posterior mean less the population's mean, in standard deviations of the population, all in
    unconstrained coordinates.

    Args:
        individuals: The posteriors.
        num_draws: Draws from the population, for its means and standard deviations.
        seed: Their seed.
    """
    prior = individuals.structure.draw_individuals(
        individuals.cohort, individuals.population, num_draws, make_generator(seed)
    )
    return (individuals.moments()[0] - prior.mean(0)) / prior.std(0)


def bin_edges(times: np.ndarray, num_bins: int) -> np.ndarray:
    """Edges of bins of about equally many values, for visual predictive checks."""
    inner = np.unique(np.quantile(times, np.linspace(0, 1, num_bins + 1)))
    return inner if len(inner) > 1 else np.array([inner[0] - 0.5, inner[0] + 0.5])
