r"""The inference phase: maximum marginal likelihood (or posterior mode) of the population.

Several starts from the prior are settled on few draws; from the best, rounds of (draw, maximise)
follow until a round on fresh draws has nothing to gain. Within a round the draws stay as they are,
so the objective is smooth and its gradient exact. At the end the estimates are scored on fresh
draws.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .cohort import Cohort
from .errors import FitError
from .guide import AmortizedGuide, structure_for
from .individual import IndividualPosteriors
from .isolation import make_generator
from .marginal import MarginalLikelihood, summarize_weights
from .optimize import Optimum
from .search import Ascent, Search, locate_population
from .structure import Model, ModelStructure, Population
from .summary import FitSummary, IndividualRow, ParameterRow
from .uncertainty import confidence_interval, delta_method, laplace_covariance

MAX_ROUNDS = 12
GAIN = 0.02
MAX_GAIN = 1.0
MIN_EFFICIENCY = 0.1


class Bic(NamedTuple):
    """The Bayesian information criterion in both conventions: log of the number of individuals or
    observations.
    """

    individuals: float
    observations: float


@dataclass(frozen=True, eq=False)
class PopulationFit:
    r"""A fitted population model. Made by :func:`fit_population`.

    Args:
        model: The population model.
        guide: The guide.
        cohort: The data.
        structure: Structure of the model.
        criterion: ``"maximum likelihood"`` or ``"maximum a posteriori"``.
        vector: Estimates in unconstrained coordinates, shape ``(population,)``.
        covariance: Their covariance from the observed information; NaN in directions the data do
            not determine.
        individuals: Corrected draws of every individual at the estimates, the fresh ones.
        marginal: log p(y_i | Psi) at the estimates on these fresh draws.
        converged: Whether the optimiser converged, the last round had nothing to gain, and the
            curvature is that of a maximum.
        message: What happened.
        num_rounds: Rounds of drawing and maximising.
    """

    model: Model
    guide: AmortizedGuide
    cohort: Cohort
    structure: ModelStructure
    criterion: str
    vector: Tensor
    covariance: Tensor
    individuals: IndividualPosteriors
    marginal: MarginalLikelihood
    converged: bool
    message: str
    num_rounds: int

    @property
    def estimates(self) -> dict[str, Tensor]:
        """Estimates by site, in their support."""
        return self.structure.constrain_population(self.vector)

    @property
    def standard_errors(self) -> dict[str, Tensor]:
        """Standard errors by site (delta method), in the support."""
        return {name: self.derived(name)[1] for name in self.structure.population}

    def derived(self, name: str) -> tuple[Tensor, Tensor]:
        """Estimate and standard error of one site."""
        return delta_method(
            lambda z: self.structure.constrain_population(z)[name], self.vector, self.covariance
        )

    @property
    def num_parameters(self) -> int:
        """Number of free population parameters."""
        return len(self.vector)

    @property
    def minus2ll(self) -> float:
        """-2 log marginal likelihood at the estimates, on fresh draws, all constants included."""
        return self.marginal.minus2ll

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2LL + 2 P."""
        return self.minus2ll + 2 * self.num_parameters

    @property
    def bic(self) -> Bic:
        """-2LL + P log(number of individuals), and -2LL + P log(number of observations)."""
        observations = sum(self.cohort[name].num_observations for name in self.structure.series)
        return Bic(
            *(
                self.minus2ll + self.num_parameters * math.log(n)
                for n in (len(self.cohort), observations)
            )
        )

    def shrinkage(self, num_draws: int = 2000, seed: int = 0) -> dict[str, float]:
        r"""Eta shrinkage of every individual parameter,
        :math:`1 - \mathrm{sd}_i(\hat\eta_i) / \omega`.

        :math:`\hat\eta_i` is the conditional mean of an individual's parameter less its mean under
        the population,
        :math:`\omega` the standard deviation under the population, both in unconstrained
        coordinates.

        Args:
            num_draws: Draws from the population, for its means and standard deviations.
            seed: Their seed.

        References:
            Savic and Karlsson (2009), Importance of shrinkage in empirical Bayes estimates.
        """
        cohort = self.individuals.cohort
        prior = self.structure.draw_individuals(
            cohort, self.estimates, num_draws, make_generator(seed)
        )
        mean = self.individuals.moments()[0]
        eta = (mean - prior.mean(0)) / prior.std(0)
        spread = 1 - eta.std(0) if len(cohort) > 1 else torch.full_like(eta[0], math.nan)
        return dict(zip(self.structure.latent_names, spread.tolist(), strict=True))

    def summary(self) -> FitSummary:
        """The fit as a table: ``print(fit.summary())``."""
        return FitSummary(
            title=(
                f"{self.criterion}, {len(self.cohort)} individuals, "
                f"{self.cohort.num_observations} observations"
            ),
            parameters=self._parameter_rows(),
            individuals=self._individual_rows(),
            shrinkage=self.shrinkage(),
            minus2ll=self.minus2ll,
            minus2ll_mc_error=self.marginal.minus2ll_mc_error,
            aic=self.aic,
            bic_individuals=self.bic.individuals,
            bic_observations=self.bic.observations,
            num_draws=self.marginal.num_draws,
            converged=self.converged,
            message=self.message,
        )

    def _parameter_rows(self) -> list[ParameterRow]:
        rows = []
        for name in self.structure.population:
            value, error = self.derived(name)

            def transform(z: Tensor, name: str = name) -> Tensor:
                return self.structure.constrain_population(z)[name]

            lower, upper = confidence_interval(transform, self.vector, self.covariance)
            labels = (
                [name] if value.numel() == 1 else [f"{name}[{j}]" for j in range(value.numel())]
            )
            columns = (x.reshape(-1).tolist() for x in (value, error, lower, upper))
            rows += [ParameterRow(*row) for row in zip(labels, *columns, strict=True)]
        return rows

    def _individual_rows(self) -> list[IndividualRow]:
        m = self.marginal
        columns = [x.tolist() for x in (-2 * m.log_likelihood, 2 * m.mc_error, m.ess, m.pareto_k)]
        return [
            IndividualRow(*row) for row in zip(self.cohort.ids, *columns, m.method, strict=True)
        ]


def fit_population(
    model: Model,
    guide: AmortizedGuide,
    cohort: Cohort,
    *,
    start: Population | None = None,
    maximum_a_posteriori: bool = False,
    num_draws: int = 2000,
    num_starts: int = 4,
    seed: int = 0,
) -> PopulationFit:
    r"""Fit a population model by maximum marginal likelihood.

    Args:
        model: The population model: the guide's program, or another one with the same individual
            sites.
        guide: The trained guide.
        cohort: The data.
        start: Population to start from. Default: ``num_starts`` draws from the prior, the best of
            which goes on.
        maximum_a_posteriori: Add the log prior density of the population (in the support, without
            Jacobian, as Pyro's ``AutoDelta`` does).
        num_draws: Draws per individual and round. The estimates' Monte Carlo error is about
            1 / sqrt(``num_draws``) of a standard error, and several times that for parameters
            without variability between individuals, on which all draws depend.
        num_starts: Number of starts.
        seed: Seed of all draws.

    Returns:
        The fit; ``fit.converged`` and ``fit.message`` say how it ended.

    Raises:
        FitError: No start has a finite likelihood.
        GuideError: The individual sites of the model differ from the guide's.
    """
    generator = make_generator(seed)
    structure = structure_for(guide, model, cohort)
    if num_starts < 1:
        raise FitError(
            f"`num_starts` is {num_starts}.", "at least 1.", "pass a positive `num_starts=`."
        )
    if start is not None:
        vector = structure.unconstrain_population(structure.check_population(start))
    else:
        vector = locate_population(
            structure,
            guide,
            cohort,
            num_starts=num_starts,
            maximum_a_posteriori=maximum_a_posteriori,
            seed=generator,
        ).vector

    scale = structure.population_scale(cohort, generator)
    search = Search(structure, guide, cohort, maximum_a_posteriori, scale)
    least = GAIN + len(vector) / num_draws
    ascent, individuals, rounds = _climb(search, vector, num_draws, generator, least)
    optimum, gain = ascent.optimum, ascent.gain
    free = ~ascent.held
    curvature = laplace_covariance(
        search.objective(ascent.likelihood), optimum.vector, scale, free=free
    )
    vanished = [n for n, x in zip(structure.population_names, free.tolist(), strict=True) if not x]
    fresh = search.draw(optimum.vector, num_draws, generator, individuals, quiet=False)
    few = float(fresh.estimate.ess.median()) < MIN_EFFICIENCY * num_draws
    covered = not few and gain < MAX_GAIN
    return PopulationFit(
        model=model,
        guide=guide,
        cohort=cohort,
        structure=structure,
        criterion="maximum a posteriori" if maximum_a_posteriori else "maximum likelihood",
        vector=optimum.vector,
        covariance=curvature.covariance
        if covered
        else torch.full_like(curvature.covariance, torch.nan),
        individuals=fresh,
        marginal=summarize_weights(fresh),
        converged=optimum.converged and gain < least and curvature.is_maximum and covered,
        message=_message(optimum, rounds, gain, least, curvature.is_maximum, covered, vanished),
        num_rounds=rounds,
    )


def _climb(
    search: Search, vector: Tensor, num_draws: int, generator: Generator, least: float
) -> tuple[Ascent, IndividualPosteriors, int]:
    """Draw and maximise in turn until fresh draws have nothing to gain."""
    individuals, rounds = None, 0
    while True:
        individuals = search.draw(vector, num_draws, generator, individuals)
        ascent = search.ascend(individuals, vector)
        if not math.isfinite(ascent.gain):
            raise FitError(
                "The likelihood at the start is not finite.",
                "a start under which every individual's data are possible.",
                "pass another `start=`, or check the data against the model.",
            )
        vector, rounds = ascent.optimum.vector, rounds + 1
        if (ascent.gain < least and rounds > 1) or rounds == MAX_ROUNDS:
            return ascent, individuals, rounds


def _message(
    optimum: Optimum,
    rounds: int,
    gain: float,
    least: float,
    is_maximum: bool,
    covered: bool,
    vanished: list[str],
) -> str:
    parts = [f"{rounds} rounds of draws; the last gained {gain:.3f} in log likelihood"]
    if not optimum.converged:
        parts.append(f"the optimiser did not converge: {optimum.message}")
    if gain >= least:
        parts.append("more rounds would still gain")
    if vanished:
        parts.append(f"{', '.join(vanished)} cannot be told from zero, and is held where it is")
    if not covered:
        parts.append("the draws do not follow the population, so there are no standard errors")
    if not is_maximum:
        parts.append(
            "the likelihood has no proper maximum: the data do not determine every parameter, or "
            "a standard deviation of the individual parameters may be zero"
        )
    return "; ".join(parts)
