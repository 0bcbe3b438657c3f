r"""The log likelihood near a fit, to second order, with the parameters of further terms.

By Fisher's identity, the score of an individual is an expectation over its posterior draws,

.. math:: s_i = E[\partial \log p(y_i, u_i) \mid y_i] .

The information of terms that change the distribution of the individual parameters is the expected
one (:mod:`pyro_amortized.applications.model_search.prior_scores`); that with shared parameters, and
of the residual error, is by Louis' identity the information of the complete data minus the
posterior covariance of the scores. No model is fitted again. With the information of the
parameters of the model itself, the score test of further parameters b is

.. math:: T = U_b^\top V^{-1} U_b, \qquad U_b = s_b - I_{b\psi} I_{\psi\psi}^{-1} s_\psi, \qquad
    V = I_{bb} - I_{b\psi} I_{\psi\psi}^{-1} I_{\psi b},

the fall of -2LL that the quadratic promises, and :math:`V^{-1} U_b` is the promised estimate.

References:
    Rao (1948), Large sample tests of statistical hypotheses; Louis (1982), Finding the observed
    information matrix when using the EM algorithm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.extended_program import CorrelatedBlock, CovariateEffect
from ...model.freed_parameter import FreedParameter
from ...model.individual_priors import individual_priors, individual_priors_at
from ...numerics.gaussians import Gaussians
from ...numerics.maximization import observed_information
from ...population.following.complete_scores import complete_scores
from ...population.likelihood.expanded_likelihood import ExpandedLikelihood
from ...population.results.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from .error_scores import error_directions
from .prior_scores import Directions, PriorChanges, directions_of
from .search_candidates import Candidate
from .search_settings import SEARCH


@dataclass(frozen=True, eq=False)
class ScoreTest:
    r"""The score test of one candidate.

    Args:
        statistic: Fall of -2LL that the quadratic promises.
        mc_error: Its Monte Carlo standard error.
        estimate: The parameters that it promises, shape ``(parameter,)``.
        change: The change of the unconstrained parameters of the model, shape ``(population,)``.
    """

    statistic: float
    mc_error: float
    estimate: Tensor
    change: Tensor


@dataclass(frozen=True, eq=False)
class Expansion:
    r"""The log likelihood near a fit as a quadratic function. Made by :func:`expand`.

    Args:
        scores: Of every individual, shape ``(individual, parameter)``: the free parameters of the
            model, sites that it holds, then the parameters of new terms.
        information: Of all individuals, shape ``(parameter, parameter)``.
        deviations: Scores of the draws minus those of their individuals, shape ``(draw, individual,
            parameter)``.
        weights: Normalised weights of the draws, shape ``(draw, individual)``.
        free: Which unconstrained parameters of the model are free, shape ``(population,)``.
        groups: For each candidate the numbers of its parameters.
    """

    scores: Tensor
    information: Tensor
    deviations: Tensor
    weights: Tensor
    free: Tensor
    groups: tuple[tuple[int, ...], ...]

    @property
    def num_free(self) -> int:
        """Number of free parameters of the model."""
        return int(self.free.sum())

    def adjusted(self, own: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """How the parameters of the model answer a change of some parameters of candidates, shape
        ``(model, own)``, and the score ``(own,)`` and information ``(own, own)`` of these, adjusted
        for the parameters of the model.
        """
        model, score, info = list(range(self.num_free)), self.scores.sum(0), self.information
        answer = torch.linalg.solve(info[model][:, model], info[model][:, own])
        adjusted = info[own][:, own] - info[own][:, model] @ answer
        return answer, score[own] - answer.T @ score[model], adjusted

    def test(self, number: int, one_sided: bool = False) -> ScoreTest | None:
        """The score test of a candidate; None if the model has its parameters already, as far as
        the data can tell.

        Where the information is not positive definite, the sum of the products of the individuals'
        scores takes its place.
        """
        own, model = list(self.groups[number]), list(range(self.num_free))
        score, info = self.scores.sum(0), self.information
        answer, slope, remaining = self.adjusted(own)
        remaining = (remaining + remaining.T) / 2
        if not self._is_new(own, model):
            return None
        if not _is_informed(remaining, info[own][:, own].diagonal()):
            # Far from its maximum, the likelihood need not be concave.
            efficient = self.scores[:, own] - self.scores[:, model] @ answer
            remaining = efficient.T @ efficient
        estimate = torch.linalg.solve(remaining, slope)
        if one_sided:
            estimate = estimate.clamp(min=0.0)
        contrast = torch.zeros(len(score), dtype=score.dtype)
        contrast[own] = estimate
        contrast[model] = -(answer @ estimate)
        moved = torch.linalg.solve(info[model][:, model], score[model]) - answer @ estimate
        change = torch.zeros(len(self.free), dtype=score.dtype).masked_scatter(self.free, moved)
        return ScoreTest(float(slope @ estimate), self._mc_error(contrast), estimate, change)

    def _is_new(self, own: list[int], model: list[int]) -> bool:
        """Whether the scores of a candidate are no combination of those of the model, for every
        draw.
        """
        root = self.weights.sqrt().unsqueeze(-1)
        scores = (root * (self.deviations + self.scores)).flatten(0, 1)
        products = scores.T @ scores
        among = products[model][:, model]
        answer = torch.linalg.lstsq(among, products[model][:, own]).solution
        left = products[own][:, own] - products[own][:, model] @ answer
        return _is_informed((left + left.T) / 2, products[own][:, own].diagonal())

    def _mc_error(self, contrast: Tensor) -> float:
        """Monte Carlo standard error of a statistic, by the delta method: a draw changes the score,
        and the information through the covariance of the scores.
        """
        offset = self.deviations @ contrast
        square = offset.square()
        influence = 2 * offset + square - (self.weights * square).sum(0)
        return float((self.weights * influence).square().sum().sqrt())


def _is_informed(information: Tensor, diagonal: Tensor) -> bool:
    """Whether the information that the parameters of the model leave is a part, above the smallest
    one, of all information.
    """
    size = diagonal.abs().clamp(min=1e-300).sqrt()
    share = torch.linalg.eigvalsh(information / (size.unsqueeze(-1) * size))
    return bool((share > SEARCH.min_information).all())


def expand(fit: PopulationFit, candidates: Sequence[Candidate]) -> Expansion:
    r"""Expand the log likelihood about a fit, with the parameters of some candidates.

    Args:
        fit: A fit with standard errors.
        candidates: Terms that its model does not have.
    """
    structure, free = fit.structure, fit.estimated
    held = [_places_of(fit, c.term.site) for c in candidates if isinstance(c.term, FreedParameter)]
    places = torch.cat([free.nonzero()[:, 0], *held])
    individuals = _some_draws(fit, len(candidates))
    cohort = individuals.cohort.to(dtype=torch.float64)
    draws, weights = individuals.unconstrained, individuals.weights
    priors = individual_priors(structure, cohort, fit.estimates)
    coordinate = {name: j for j, name in enumerate(structure.latent_names)}
    of_priors = [c for c in candidates if isinstance(c.term, CovariateEffect | CorrelatedBlock)]
    directions, groups = directions_of(of_priors, coordinate, cohort)
    of_error = [c for c in candidates if c.one_sided]
    errors = error_directions(fit, individuals, of_error, places)
    steps = SEARCH.relative_step * fit.search.scale
    repeated = cohort.repeat(len(draws))
    of_model = complete_scores(structure, cohort, repeated, draws, fit.vector, steps)[..., places]
    of_terms = directions.scores_of(draws, priors)
    scores = torch.cat([of_model, of_terms, errors.scores], -1)
    mean = torch.einsum("kn,knp->np", weights, scores)
    centered = scores - mean
    missing = torch.einsum("kn,knp,knq->pq", weights, centered, centered)
    num, own = len(places), len(directions)
    at_priors, end = slice(num, num + own), num + own
    information = -missing
    information[:num, :num] = _model_information(fit, places)
    information[at_priors, :end] = _prior_information(
        fit, individuals, directions, priors, missing[at_priors, :num], places
    )
    information[:num, at_priors] = information[at_priors, :num].T
    information[end:, :num] += errors.with_model
    information[:num, end:] += errors.with_model.T
    information[end:, end:] += errors.information
    numbers = _in_order(candidates, groups, int(free.sum()), num, end)
    return Expansion(mean, information, centered, weights, free, numbers)


def _places_of(fit: PopulationFit, site: str) -> Tensor:
    """The coordinates of a population site."""
    return fit.structure.coordinates({site}).nonzero()[:, 0]


def _model_information(fit: PopulationFit, places: Tensor) -> Tensor:
    """Observed information of the free parameters of the model, and then of sites that it holds.

    The draws follow the population, so that a site that the individuals could compensate for has
    its right information.
    """
    num = int(fit.estimated.sum())
    known = torch.linalg.inv(fit.covariance[fit.estimated][:, fit.estimated])
    if len(places) == num:
        return known
    likelihood, unit = ExpandedLikelihood(fit.individuals, fit.search.scale), fit.search.scale
    at, constrain = fit.vector[places], fit.structure.constrain_population

    def objective(steps: Tensor) -> Tensor:
        vector = fit.vector.index_put((places,), at + unit[places] * steps)
        return likelihood(constrain(vector)).sum()

    size = unit[places]
    information = observed_information(objective, torch.zeros_like(at))
    information = information / (size.unsqueeze(-1) * size)
    information[:num, :num] = known
    return information


def _in_order(
    candidates: Sequence[Candidate], groups: list[list[int]], held: int, priors: int, errors: int
) -> tuple[tuple[int, ...], ...]:
    """For each candidate the numbers of its parameters. Those of sites that are held, those of the
    priors and those of the residual errors begin at the three given numbers.
    """
    of_priors = iter(groups)
    numbers: list[tuple[int, ...]] = []
    for candidate in candidates:
        if isinstance(candidate.term, FreedParameter):
            numbers.append(tuple(range(held, held + candidate.num_added)))
            held += candidate.num_added
        elif candidate.one_sided:
            numbers.append((errors,))
            errors += 1
        else:
            numbers.append(tuple(priors + j for j in next(of_priors)))
    return tuple(numbers)


def _some_draws(fit: PopulationFit, num_candidates: int) -> IndividualPosteriors:
    """The draws of the fit, fewer if there are very many individuals."""
    size = len(fit.cohort) * (len(fit.vector) + num_candidates)
    return fit.individuals.some(max(SEARCH.min_draws, SEARCH.max_values // max(size, 1)))


def _prior_information(
    fit: PopulationFit,
    individuals: IndividualPosteriors,
    directions: Directions,
    priors: Gaussians,
    missing: Tensor,
    places: Tensor,
) -> Tensor:
    """Expected information of the directions, with some coordinates of the population and with each
    other, shape ``(direction, place + direction)``.

    ``missing`` is the sum of the posterior covariances of the scores of the directions with those
    of the places; it is used for the shared parameters, on which the observations depend directly.
    """
    weights, draws = individuals.weights, individuals.unconstrained
    offset = draws - torch.einsum("kn,knd->nd", weights, draws)
    posterior = torch.einsum("kn,knd,kne->nde", weights, offset, offset)
    precision = torch.cholesky_inverse(priors.scale_tril)
    seen = precision - precision @ posterior @ precision
    of_model, own = _changes_of_model(fit, individuals, places), directions.changes(priors)
    with_model = own.information(of_model, seen)
    shared = fit.structure.coordinates(fit.structure.shared)[places]
    complete = own.information(of_model, precision) - missing
    with_model = torch.where(shared, complete, with_model)
    return torch.cat([with_model, own.information(own, seen)], -1)


def _changes_of_model(
    fit: PopulationFit, individuals: IndividualPosteriors, places: Tensor
) -> PriorChanges:
    """How some coordinates of the population change the distributions of the individuals."""
    steps = SEARCH.relative_step * fit.search.scale[places]
    shifts = torch.zeros(len(places), len(fit.vector), dtype=torch.float64)
    shifts[torch.arange(len(places)), places] = steps
    vectors = torch.cat([fit.vector + shifts, fit.vector - shifts])
    with torch.no_grad():
        moved = individual_priors_at(fit.structure, individuals.cohort, vectors)
    covariance = moved.scale_tril @ moved.scale_tril.mT
    ends = (moved.loc.chunk(2), covariance.chunk(2))
    loc, matrix = (
        (ahead - behind) / (2 * steps.reshape(-1, *[1] * (ahead.dim() - 1)))
        for ahead, behind in ends
    )
    return PriorChanges(loc, matrix)
