r"""Posterior draws of the population parameters, and of the individuals given them.

The population is drawn by sampling-importance resampling on the collapsed model. Draws from a
Student-t distribution around the estimates, with the covariance of the fit, get weights by

.. math:: p(\Psi)\, \prod_i \hat p(y_i \mid \Psi) .

A mixture is fitted to them. The final draws come from this mixture (and a tenth of them from the
first distribution), are weighted in the same way and resampled.

The likelihood is computed from weighted draws of the individuals. These are the draws of the fit,
or new draws for several populations if those of the fit would lose effective draws
(:mod:`pyro_amortized.population.posterior.pooled_proposals`). Given a draw of the population, one
of the draws of every individual is chosen by its weight under this population.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ...errors import FitError
from ...numerics.cholesky import factored
from ...numerics.laplace import difference_steps, laplace_covariance
from ...runtime.arguments import check_count, check_is
from ...runtime.progress import counting_steps, showing_progress
from ...runtime.random_numbers import make_generator
from ...runtime.text_table import text_table
from ...runtime.threads import threads_for
from ...sampling.importance_weights import (
    effective_sample_size,
    importance_estimate,
    normalized_weights,
    resample,
)
from ...sampling.individuals import IndividualPosteriors
from ...sampling.student_mixture import StudentMixture, fit_student_mixture
from ...sampling.weighted_fits import tempered_weights
from ..results.draws_text import draws_rows
from ..results.fit_result import PopulationFit
from ..search.information_check import information_check
from .cohort_size import check_size
from .posterior_density import (
    DENSITY,
    AnyLikelihood,
    EachPopulation,
    PosteriorDensity,
    WeightedPopulations,
)


@dataclass(frozen=True)
class ResamplingSettings:
    r"""Effort and limits of the sampling-importance resampling.

    Args:
        max_rounds: Rounds of fitting the mixture.
        sufficient_efficiency: Effective share of the pilot draws above which they end.
        num_components: Components of the mixture.
        pilot_share: Pilot draws, as a share of the weighted draws.
        min_pilot_draws: Fewest pilot draws.
        first_share: Share of the first Student-t distribution in the final draws; bounds the
            weights.
        effective_draws_per_dimension: Effective draws per component and parameter that the mixture
            is fitted to. With fewer there are fewer components: three of 15 parameters, fitted to
            110 effective draws, made the next pilot worse.
    """

    max_rounds: int = 3
    sufficient_efficiency: float = 0.7
    num_components: int = 3
    pilot_share: float = 0.125
    min_pilot_draws: int = 100
    first_share: float = 0.1
    effective_draws_per_dimension: float = 5.0


RESAMPLING = ResamplingSettings()


@dataclass(frozen=True, eq=False)
class PopulationDraws:
    r"""Posterior draws of the population. Made by :func:`sample_population`.

    Args:
        fit: The fit.
        vectors: Equally weighted draws, unconstrained, shape ``(draw, population)``.
        ess: Effective sample size of the weighted draws from which they were resampled.
        pareto_k: Pareto k of the weights; above 0.7 use NUTS on ``marginalize(model)``.
        log_likelihoods: Log p(y_i | Psi) at every draw, shape ``(draw, individual)``.
        likelihood: Log p(y_i | Psi) on draws of the individuals: those of the fit, or new ones for
            several populations. It is interpolated in the shared parameters if this agrees within
            0.01, or expanded about the draws of the individuals.
        likelihood_error: Root mean square error of the log likelihood of all individuals at the
            draws, from populations at which an expanded likelihood was compared with the model; it
            moves the mean of a parameter by less than this part of its standard deviation. Zero
            where there was nothing to compare.
    """

    fit: PopulationFit
    vectors: Tensor
    ess: float
    pareto_k: float
    log_likelihoods: Tensor
    likelihood: AnyLikelihood
    likelihood_error: float = 0.0

    def __repr__(self) -> str:
        quality = f"of weighted ones with ESS {self.ess:.0f} and Pareto k {self.pareto_k:.2f}"
        table = text_table(draws_rows(self.fit.structure, self.vectors))
        return f"{len(self.vectors)} draws of the population, {quality}\n\n{table}"

    @property
    def individual_posteriors(self) -> IndividualPosteriors:
        """The weighted draws of the individuals that the likelihood is computed from, at the
        estimates of the fit.
        """
        return self.likelihood.individuals

    @property
    def draws(self) -> dict[str, Tensor]:
        """Draws by site, in their support, shape ``(draw, *site)``."""
        return self.fit.structure.constrain_population(self.vectors)

    def individuals(self, seed: int = 0) -> Tensor:
        """One draw of every individual's parameters per draw of the population, unconstrained,
        shape ``(draw, individual, latent)``.
        """
        generator, result = make_generator(seed), []
        draws, following = self.individual_posteriors.unconstrained, self.likelihood.following
        rows = torch.arange(len(self.fit.cohort))
        weights_of = EachPopulation(self.likelihood, normalized_weights)
        for vectors in self.vectors.split(weights_of.size):
            weights = weights_of(vectors).movedim(1, 0)  # (draw, population, individual)
            index = resample(weights.flatten(1), 1, generator).reshape(weights.shape[1:])
            moved = [
                following.moved(x.unsqueeze(0), vector)[0]
                for x, vector in zip(draws[index, rows], vectors, strict=True)
            ]
            result.append(torch.cat(moved))
        return torch.cat(result)

    def individual_sites(self, seed: int = 0) -> dict[str, Tensor]:
        """The same by site, in their support, shape ``(draw, individual, *event)``."""
        structure, cohort, draws = self.fit.structure, self.fit.cohort, self.individuals(seed)
        populations = [structure.constrain_population(vector) for vector in self.vectors]

        def separately(rows: range) -> dict[str, Tensor]:
            sites = [structure.constrained_draws(cohort, draws[[i]], populations[i]) for i in rows]
            return {name: torch.cat([x[name] for x in sites]) for name in structure.individual}

        # The supports of few models depend on the population. For the others, one call is enough.
        together = structure.constrained_draws(cohort, draws, populations[0])
        first = range(min(3, len(draws)))
        independent = all(
            torch.equal(x, together[name][: len(first)]) for name, x in separately(first).items()
        )
        return together if independent else separately(range(len(draws)))


def sample_population(
    fit: PopulationFit,
    *,
    num_draws: int = 500,
    num_proposals: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> PopulationDraws:
    r"""Posterior draws of the population parameters, by sampling-importance resampling.

    Parameters that were fixed, and standard deviations that cannot be distinguished from zero, keep
    their values. Parameters that the data do not determine have the spread of the prior; they keep
    their values where the posterior density has no finite curvature at the estimates.

    Args:
        fit: A fit with standard errors.
        num_draws: Number of draws of the result.
        num_proposals: Number of weighted draws from which they are resampled.
        seed: Seed.
        progress: Show a progress bar of the weighted populations on standard error.

    Returns:
        Equally weighted draws, with ESS and Pareto k of the weights behind them.

    Raises:
        FitError: The fit has no standard errors, or more than 20,000 individuals.

    References:
        Dosne, Bergstrand, Harling, Karlsson (2016), Improving the estimation of parameter
        uncertainty distributions in nonlinear mixed effects models using sampling importance
        resampling.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    check_size(fit, "Posterior draws of the population")
    check_count("num_draws", num_draws, error=FitError)
    check_count("num_proposals", num_proposals, error=FitError)
    covariance = _covariance(fit)
    known = ~covariance.diagonal().isnan()
    if not bool(known.any()):
        raise FitError(
            "The fit has no standard errors to draw around.",
            "a fit that converged.",
            "look at `fit.message`, or use NUTS on `marginalize(model)`.",
        )
    generator = make_generator(seed)
    first = StudentMixture.single(fit.vector[known], factored(covariance[known][:, known]))
    threads = threads_for(fit.individuals.num_draws * fit.cohort.num_values)
    with threads, showing_progress(progress), counting_steps("population", unit="part"):
        test_draws = first.draw(DENSITY.num_test_draws, generator)
        target = PosteriorDensity(fit, covariance, test_draws, generator)
        mixture = _fitted_mixture(target, first, num_proposals, generator)
        draws, weighted = _final_draws(target, first, mixture, num_proposals, generator)
    log_weights, values, error = weighted
    estimate = importance_estimate(log_weights)
    index = resample(normalized_weights(log_weights), num_draws, generator)[:, 0]
    index = index[torch.randperm(num_draws, generator=generator)]
    vectors = target.all_coordinates(draws[index, 0])
    ess, pareto_k = float(estimate.ess), float(estimate.pareto_k)
    return PopulationDraws(
        fit, vectors, ess, pareto_k, values[index], target.likelihood, likelihood_error=error
    )


def _covariance(fit: PopulationFit) -> Tensor:
    """The covariance of the estimates; with the curvature of the prior added where the data alone
    do not determine a parameter.
    """
    if not fit.undetermined:
        return fit.covariance
    search = replace(fit.search, criterion="posterior mode")
    likelihood, place = search.likelihood(fit.individuals), (fit.vector, search.scale, fit.free)
    check = information_check(search.objective, likelihood, *place)
    objective = search.objective(likelihood)
    steps = difference_steps(likelihood.following.scores, search.scale)
    covariance = laplace_covariance(objective, *place, steps, check).covariance
    is_known = ~covariance.diagonal().isnan()
    return covariance if bool(is_known[fit.estimated].all()) else fit.covariance


def _fitted_mixture(
    target: PosteriorDensity, first: StudentMixture, num_proposals: int, generator: Generator
) -> StudentMixture:
    """The best of the first distribution and of mixtures that are fitted to weighted pilot draws,
    in rounds.
    """
    settings, num_dimensions = RESAMPLING, first.means.shape[-1]
    per_component = settings.effective_draws_per_dimension * num_dimensions
    num_pilot = max(settings.min_pilot_draws, int(settings.pilot_share * num_proposals))
    mixture, best, best_ess = first, first, 0.0
    for _ in range(settings.max_rounds):
        pilot = mixture.draw(num_pilot, generator)
        log_proposal = mixture.log_prob(pilot)
        log_weights = target.weighted(pilot, log_proposal, DENSITY.max_pilot_error).log_weights
        ess = float(effective_sample_size(log_weights))
        if not ess > best_ess:
            break
        best, best_ess = mixture, ess
        if ess > settings.sufficient_efficiency * num_pilot:
            break
        num_components = max(1, min(settings.num_components, int(ess / per_component)))
        weights = tempered_weights(log_weights, per_component * num_components)
        mixture = fit_student_mixture(pilot, weights, num_components, generator)
    return best


def _final_draws(
    target: PosteriorDensity,
    first: StudentMixture,
    mixture: StudentMixture,
    num_proposals: int,
    generator: Generator,
) -> tuple[Tensor, WeightedPopulations]:
    """Draws of the mixture and of the first distribution together, and their log weights."""
    share = RESAMPLING.first_share
    num_first = int(share * num_proposals)
    draws = torch.cat(
        [mixture.draw(num_proposals - num_first, generator), first.draw(num_first, generator)]
    )
    parts = torch.stack(
        [mixture.log_prob(draws) + math.log(1 - share), first.log_prob(draws) + math.log(share)]
    )
    return draws, target.weighted(draws, parts.logsumexp(0))
