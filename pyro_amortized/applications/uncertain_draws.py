r"""Draws of patients that carry the uncertainty of the population.

Draws :math:`u_k` of a patient with samples y, made at the estimates, are moved to populations
:math:`\Psi_k` drawn from the distribution :math:`p(\Psi \mid D)` of a fit of the data D, and get
the weights

.. math:: w_k = \frac{p(y, u_k(\Psi_k) \mid \Psi_k)}{q(u_k)}
          \left| \frac{\partial u_k(\Psi_k)}{\partial u_k} \right| ,

so they are draws of :math:`p(\phi, \Psi \mid y, D) \propto p(\phi, y \mid \Psi)\,
p(\Psi \mid D)`: the samples of a new patient also weight the populations. A patient whose samples
are among the data D has already done so; there the weights are divided by :math:`p(y \mid \Psi_k)`.

Populations from a normal distribution are sets of quasi-random points, so that few are enough; the
Monte Carlo error comes from the differences between sets.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..model import Population
from ..population.following.fitted_following import follow
from ..population.following.following_draws import Following
from ..population.likelihood.exact_likelihood import ExactLikelihood
from ..sampling.importance_weights import log_moments
from ..sampling.individuals import IndividualPosteriors
from .population_source import Source

DoseUncertainty = Literal["population and individuals", "individuals"]
DOSE_UNCERTAINTIES: tuple[DoseUncertainty, ...] = ("population and individuals", "individuals")


@dataclass(frozen=True)
class UncertainSettings:
    r"""Number of populations.

    Args:
        num_populations: Populations (or one for each draw, where there are fewer draws), each a
            call of the model. More did not change the Monte Carlo error of a dose.
        num_sets: Sets of quasi-random populations, from whose differences the Monte Carlo error
            comes: with 16 it is itself known within a fifth.
        likelihood_draws: Draws that p(y | Psi) of a patient among the data is computed from; they
            follow the population, so that a hundred change it by less than a per cent.
    """

    num_populations: int = 256
    num_sets: int = 16
    likelihood_draws: int = 100


SETTINGS = UncertainSettings()


@dataclass(frozen=True, eq=False)
class UncertainDraws:
    r"""Weighted draws of patients, each with its population.

    Args:
        unconstrained: Individual parameters, shape ``(draw, individual, latent)``.
        population: Values of the population sites, or one population for each draw, unconstrained,
            shape ``(draw, population)``; equal ones follow each other.
        log_weights: Shape ``(draw, individual)``.
        groups: Group of each draw, shape ``(draw,)``; None for independent draws.
    """

    unconstrained: Tensor
    population: Population | Tensor
    log_weights: Tensor
    groups: Tensor | None

    @property
    def kind(self) -> DoseUncertainty:
        """What varies between the draws."""
        return "individuals" if self.groups is None else "population and individuals"


def certain_draws(posterior: IndividualPosteriors) -> UncertainDraws:
    """Draws of patients at the estimates of the population."""
    draws, weights = posterior.unconstrained, posterior.log_weights
    return UncertainDraws(draws, posterior.population, weights, None)


def uncertain_draws(
    source: Source, posterior: IndividualPosteriors, generator: Generator
) -> UncertainDraws:
    r"""Draws of patients with draws of the population.

    Args:
        source: The population.
        posterior: Draws of the patients at its estimates.
        generator: Source of randomness.

    Raises:
        FitError: The uncertainty of the population is not known.
    """
    structure, num = posterior.structure, posterior.num_draws
    wanted = min(SETTINGS.num_populations, num)
    vectors, groups = source.grouped_vectors(structure, wanted, SETTINGS.num_sets, generator)
    following = following_of(source, posterior, vectors)
    seen = None if source.fit is None else among_the_data(posterior.cohort, source.fit.cohort)
    parts, moved, rows = [], [], []
    order = torch.randperm(num, generator=generator)  # draws may be in the order of components
    for j, places in enumerate(order.tensor_split(len(vectors))):
        draws, log_weights = _under(posterior, following, vectors[j], places)
        if seen is not None and bool(seen.any()):
            some = order[: SETTINGS.likelihood_draws]
            change = _likelihood_change(posterior, following, vectors[j], some)
            log_weights = log_weights - seen * change
        moved.append(draws)
        parts.append(log_weights)
        rows.append(torch.full((len(places),), j))
    index = torch.cat(rows)
    return UncertainDraws(torch.cat(moved), vectors[index], torch.cat(parts), groups[index])


def following_of(source: Source, posterior: IndividualPosteriors, vectors: Tensor) -> Following:
    """How draws of individuals follow the population, for populations ``(draw, population)``."""
    if source.fit is not None:
        return follow(posterior, source.fit.search.scale)
    scale = vectors.std(0)
    return follow(posterior, torch.where(scale > 0, scale, torch.ones_like(scale)))


def _under(
    posterior: IndividualPosteriors, following: Following, vector: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Some draws at a population, and their log weights."""
    part, structure = posterior.picked(places), posterior.structure
    with torch.no_grad():
        likelihood = ExactLikelihood(part, following)
        log_weights = likelihood.log_weights(structure.constrain_population(vector))
        return following.moved(likelihood.draws, vector)[0], log_weights


def _likelihood_change(
    posterior: IndividualPosteriors, following: Following, vector: Tensor, places: Tensor
) -> Tensor:
    """Log p(y_i | Psi) at a population minus that at the estimates, on common draws, shape
    ``(individual,)``.
    """
    _, log_weights = _under(posterior, following, vector, places)
    before = log_moments(posterior.log_weights[places])[0]
    return (log_moments(log_weights)[0] - before).nan_to_num(0.0, 0.0, 0.0)


def among_the_data(patients: Cohort, data: Cohort) -> Tensor:
    """Whether each patient is an individual of a cohort with the same recorded values, shape
    ``(individual,)``.
    """
    known = {label: i for i, label in enumerate(data.ids)}
    found = [
        i in known and _is_same(patients, j, data, known[i]) for j, i in enumerate(patients.ids)
    ]
    return torch.tensor(found)


def _is_same(patients: Cohort, row: int, data: Cohort, other: int) -> bool:
    """Whether an individual has the recorded times and values of another."""
    for name, series in data.series.items():
        if name not in patients:
            return False
        pair = []
        for s, i in ((patients[name], row), (series, other)):
            times = s.times[i].double()[s.present[i]]
            pair.append((times, s.values[i].double()[s.observed[i]]))
        (times, values), (known_times, known_values) = pair
        if not (torch.equal(times, known_times) and torch.equal(values, known_values)):
            return False
    return True
