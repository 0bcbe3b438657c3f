r"""Estimation of the population parameters by maximum marginal likelihood, or posterior mode.

Starting values are found with few draws. From the best one, rounds of drawing and maximising follow
until a round on new draws has nothing to gain,

.. math:: \Psi^{(r+1)} = \arg\max_\Psi \sum_i \log \hat p_r(y_i \mid \Psi),

where the draws of round r were made at :math:`\Psi^{(r)}`. The curvature at the end gives the
covariance of the estimates, and new draws give the likelihood that is reported.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..guide import AmortizedGuide, structure_for
from ..guide.learned_likelihood import structure_with
from ..model import Estimator, Model, ModelStructure, Population
from ..numerics.laplace import laplace_covariance
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import MIN_DRAWS, IndividualPosteriors
from .fit_result import PopulationFit
from .likelihood_estimate import summarize_weights
from .maximum_search import Ascent, Criterion, Search
from .retraining import reasons_to_retrain, retrained
from .starting_values import locate_population


@dataclass(frozen=True)
class EstimationSettings:
    """When the rounds of a fit end, and how many draws they use."""

    max_rounds: int = 12
    # After so many rounds all draws are used, however much the last one gained: the rounds that are
    # left are enough to converge with them.
    max_first_rounds: int = 6
    # Default number of draws per individual: numerator / sqrt(number of individuals), within
    # limits. The Monte Carlo error of the estimates is then a few per cent of a standard error.
    draws_numerator: float = 20_000.0
    min_draws: int = 300
    max_draws: int = 2_000
    # The first rounds use this share of the draws, and at least the second number.
    first_rounds_share: float = 0.25
    min_first_draws: int = 100
    # Gain of a round, in log likelihood, below which the next round uses all draws; in a cohort
    # of more than six individuals half of their number.
    near_gain: float = 3.0
    # The rounds end when one gains less than this, plus twice the number of parameters divided by
    # the number of draws, an allowance for the gain that Monte Carlo error alone can give.
    min_gain: float = 0.02
    # A fit whose last round gained more has no standard errors.
    max_final_gain: float = 1.0
    # The same for a fit whose draws have a smaller median share of effective ones.
    min_final_efficiency: float = 0.1


ESTIMATION = EstimationSettings()


def fit_population(
    model: Model,
    guide: AmortizedGuide,
    cohort: Cohort,
    *,
    start: Population | None = None,
    fixed: Population | None = None,
    maximum_a_posteriori: bool = False,
    num_draws: int | None = None,
    num_starts: int = 4,
    estimator: Estimator | None = None,
    retrain: bool | None = None,
    seed: int = 0,
) -> PopulationFit:
    r"""Fit a population model by maximum marginal likelihood.

    Args:
        model: The population model: the model of the guide, or another one with the same individual
            sites.
        guide: The trained guide.
        cohort: The data.
        start: Population to start from. Default: the best of ``num_starts`` draws from the prior.
        fixed: Values of population sites that are not estimated.
        maximum_a_posteriori: Add the log prior density of the population (in the support, without
            Jacobian, as Pyro's ``AutoDelta`` does).
        num_draws: Draws per individual and round. Default: 2,000, and from 100 individuals on
            20,000 / sqrt(N), at least 300. The Monte Carlo error of the estimates is about
            1 / sqrt(``num_draws``) of a standard error, and several times that for parameters
            without variability between individuals, on which all draws depend.
        num_starts: Number of starts.
        estimator: ``"corrected"`` by the density of the model, or ``"likelihood-free"``: by the
            density that the guide has learned (see
            :mod:`pyro_amortized.guide.learned_likelihood`). Default: corrected if the model has a
            density. ``fit.estimator`` and the summary say which.
        retrain: Train the guide further around the fit, and fit once more with it, starting from
            the first fit; ``fit.guide`` is then the new guide. Default: if there are reasons for it
            (:func:`~pyro_amortized.population.retraining.reasons_to_retrain`), with a warning.
        seed: Seed of all draws.

    Returns:
        The fit; ``fit.converged`` and ``fit.message`` say how it ended.

    Raises:
        FitError: No start has a finite likelihood, or all population parameters are fixed.
        GuideError: The individual sites of the model differ from those of the guide.
    """
    check_count("num_starts", num_starts, error=FitError)
    criterion: Criterion = "maximum a posteriori" if maximum_a_posteriori else "maximum likelihood"
    arguments = (fixed, criterion, num_draws, num_starts, estimator, seed)
    first = fit_once(model, guide, cohort, start, *arguments)
    reasons = [] if retrain is not None else reasons_to_retrain(first)
    if not (retrain or reasons):
        return first
    new_guide = retrained(first, reasons, seed)
    second = fit_once(model, new_guide, cohort, first.estimates, *arguments)
    return replace(second, message=f"{second.message}; the guide was trained again around a fit")


def fit_once(
    model: Model,
    guide: AmortizedGuide,
    cohort: Cohort,
    start: Population | None = None,
    fixed: Population | None = None,
    criterion: Criterion = "maximum likelihood",
    num_draws: int | None = None,
    num_starts: int = 4,
    estimator: Estimator | None = None,
    seed: int = 0,
) -> PopulationFit:
    """One fit without retraining; arguments as in :func:`fit_population`."""
    generator = make_generator(seed)
    if num_draws is not None:
        check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
    structure = structure_with(structure_for(guide, model, cohort), guide, estimator)
    if num_draws is None:
        num_draws = _default_num_draws(len(cohort))
    fixed = structure.check_values(fixed or {})
    held = _held(structure, fixed)
    search = Search.begin(structure, guide, cohort, criterion, generator)
    if start is not None:
        vector = structure.unconstrain_population(structure.check_population(dict(start) | fixed))
    else:
        vector = locate_population(
            search, num_starts=num_starts, fixed=fixed, seed=generator
        ).vector
    rounds = _run_rounds(search, vector, num_draws, generator, held)
    return _finish(model, rounds, num_draws, generator, fixed)


def _default_num_draws(num_individuals: int) -> int:
    settings = ESTIMATION
    num_draws = settings.draws_numerator / math.sqrt(num_individuals)
    return round(min(settings.max_draws, max(settings.min_draws, num_draws)))


def _held(structure: ModelStructure, fixed: Population) -> Tensor:
    """Coordinates of the fixed sites, which may not be all."""
    held = structure.coordinates(fixed)
    if bool(held.all()):
        raise FitError(
            f"All population parameters are fixed: {list(fixed)}.",
            "one free parameter or more.",
            "leave one out of `fixed=`; for a score alone use `marginal_likelihood`.",
        )
    return held


class _Rounds(NamedTuple):
    """The result of all rounds: the last of them, its draws, the number of rounds, and the gain
    below which they end.
    """

    search: Search
    ascent: Ascent
    individuals: IndividualPosteriors
    num_rounds: int
    min_gain: float


def _run_rounds(
    search: Search, vector: Tensor, num_draws: int, generator: Generator, held: Tensor
) -> _Rounds:
    """Draw and maximise in turn until new draws have nothing to gain.

    The first rounds use a part of the draws. A standard deviation that cannot be
    distinguished from zero is doubled as long as this is true.
    """
    settings, fixed = ESTIMATION, held
    individuals, ascent, num_rounds, near = None, None, 0, False
    min_gain = settings.min_gain + 2 * len(vector) / num_draws
    near_gain = max(settings.near_gain, len(search.cohort) / 2)
    first_draws = max(settings.min_first_draws, int(num_draws * settings.first_rounds_share))
    first_draws = min(num_draws, first_draws)
    while True:
        num = num_draws if near else first_draws
        individuals = search.draw(vector, num, generator, individuals)
        ascent = search.ascend(individuals, vector, held, last=ascent)
        held = ascent.held
        if not math.isfinite(ascent.gain):
            raise FitError(
                "The likelihood at the start is not finite.",
                "a start under which every individual's data are possible.",
                "pass another `start=`, or check the data against the model.",
            )
        vector, num_rounds = ascent.optimum.vector, num_rounds + 1
        wider = ascent.wider.masked_fill(fixed, 0.0)
        if bool(wider.any()) and num_rounds < settings.max_rounds:
            vector = vector + wider
            continue
        if (ascent.gain < min_gain and near) or num_rounds == settings.max_rounds:
            return _Rounds(search, ascent, individuals, num_rounds, min_gain)
        near = near or ascent.gain < near_gain or num_rounds == settings.max_first_rounds


def _finish(
    model: Model, rounds: _Rounds, num_draws: int, generator: Generator, fixed: Population
) -> PopulationFit:
    """Covariance of the estimates, and new draws of the individuals."""
    search, ascent = rounds.search, rounds.ascent
    optimum, structure = ascent.optimum, search.structure
    curvature = laplace_covariance(
        search.objective(ascent.likelihood), optimum.vector, search.scale, free=~ascent.held
    )
    new = search.draw(optimum.vector, num_draws, generator, rounds.individuals, quiet=False)
    min_ess = ESTIMATION.min_final_efficiency * num_draws
    covered = float(new.estimate.ess.median()) >= min_ess
    covered = covered and ascent.gain < ESTIMATION.max_final_gain
    unknown = torch.full_like(curvature.covariance, torch.nan)
    converged = optimum.converged and ascent.gain < rounds.min_gain
    return PopulationFit(
        model=model,
        guide=search.guide,
        cohort=search.cohort,
        structure=structure,
        criterion=search.criterion,
        vector=optimum.vector,
        covariance=curvature.covariance if covered else unknown,
        individuals=new,
        marginal=summarize_weights(new),
        converged=converged and curvature.is_maximum and covered,
        message=_message(rounds, curvature.is_maximum, covered, fixed),
        num_rounds=rounds.num_rounds,
        search=search,
        fixed=tuple(fixed),
    )


def _message(rounds: _Rounds, is_maximum: bool, covered: bool, fixed: Population) -> str:
    ascent, structure = rounds.ascent, rounds.search.structure
    parts = [
        f"{rounds.num_rounds} rounds of draws; the last gained {ascent.gain:.3f} in log likelihood"
    ]
    if not ascent.optimum.converged:
        parts.append(f"the optimiser did not converge: {ascent.optimum.message}")
    if ascent.gain >= rounds.min_gain:
        parts.append("more rounds would still gain")
    vanishing = (ascent.held & ~structure.coordinates(fixed)).tolist()
    names = [n for n, x in zip(structure.population_names, vanishing, strict=True) if x]
    if names:
        parts.append(f"{', '.join(names)} cannot be distinguished from zero, and is held")
    if not covered:
        parts.append("the draws do not follow the population, so there are no standard errors")
    if not is_maximum:
        parts.append(
            "the likelihood has no proper maximum: the data do not determine every parameter, or "
            "a standard deviation of the individual parameters may be zero"
        )
    return "; ".join(parts)
