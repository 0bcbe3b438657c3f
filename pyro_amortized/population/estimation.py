r"""The inference phase: maximum marginal likelihood (or posterior mode) of the population.

Several starts from the prior are settled on few draws; from the best, rounds of (draw, maximise)
follow until a round on fresh draws has nothing to gain. Within a round the draws stay as they are,
so the objective is smooth and its gradient exact. At the end the estimates are scored on fresh
draws.
"""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..guide import AmortizedGuide, structure_for
from ..guide.learned_likelihood import structure_with
from ..model import Estimator, Model, ModelStructure, Population
from ..numerics.laplace import laplace_covariance
from ..numerics.maximization import Optimum
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import MIN_DRAWS, IndividualPosteriors
from .fit_result import PopulationFit
from .likelihood_estimate import summarize_weights
from .maximum_search import Ascent, Criterion, Search, locate_population
from .retraining import reasons_to_retrain, retrained

MAX_ROUNDS = 12
MIN_FEW = 100
NEAR = 3.0  # gain of a round on few draws from which on it takes all of them
GAIN = 0.02
MAX_GAIN = 1.0
MIN_EFFICIENCY = 0.1


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
        model: The population model: the guide's program, or another one with the same individual
            sites.
        guide: The trained guide.
        cohort: The data.
        start: Population to start from. Default: ``num_starts`` draws from the prior, the best of
            which goes on.
        fixed: Values of population sites that are held there.
        maximum_a_posteriori: Add the log prior density of the population (in the support, without
            Jacobian, as Pyro's ``AutoDelta`` does).
        num_draws: Draws per individual and round. Default: 2,000, and from 100 individuals on
            20,000 / sqrt(N), at least 300. The estimates' Monte Carlo error is about
            1 / sqrt(``num_draws``) of a standard error, and several times that for parameters
            without variability between individuals, on which all draws depend.
        num_starts: Number of starts.
        estimator: ``"corrected"`` by the model's density, or ``"likelihood-free"``, by what the
            guide has learned in its place (see :mod:`pyro_amortized.guide.learned_likelihood`).
            Default: corrected
            where the model has a density. ``fit.estimator`` and the summary say which.
        retrain: Train the guide further around the fit, and fit once more from there with it:
            ``fit.guide`` is then the new guide. Default: where the fit asks for it
            (:func:`~pyro_amortized.population.retraining.reasons_to_retrain`), with a warning.
        seed: Seed of all draws.

    Returns:
        The fit; ``fit.converged`` and ``fit.message`` say how it ended.

    Raises:
        FitError: No start has a finite likelihood.
        GuideError: The individual sites of the model differ from the guide's.
    """
    check_count("num_starts", num_starts, error=FitError)
    criterion: Criterion = "maximum a posteriori" if maximum_a_posteriori else "maximum likelihood"
    asked = (fixed, criterion, num_draws, num_starts, estimator, seed)
    first = fit_once(model, guide, cohort, start, *asked)
    reasons = [] if retrain is not None else reasons_to_retrain(first)
    if not (retrain or reasons):
        return first
    better = retrained(first, reasons, seed)
    second = fit_once(model, better, cohort, first.estimates, *asked)
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
    """One fit with the guide as it is; arguments as of :func:`fit_population`."""
    generator = make_generator(seed)
    if num_draws is not None:
        check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
    structure = structure_with(structure_for(guide, model, cohort), guide, estimator)
    if num_draws is None:
        num_draws = round(min(2000, max(300, 20_000 / math.sqrt(len(cohort)))))
    fixed = structure.check_values(fixed or {})
    held = _held(structure, fixed)
    search = Search.begin(structure, guide, cohort, criterion, generator)
    if start is not None:
        vector = structure.unconstrain_population(structure.check_population(dict(start) | fixed))
    else:
        vector = locate_population(
            search, num_starts=num_starts, fixed=fixed, seed=generator
        ).vector
    least = GAIN + 2 * len(vector) / num_draws
    ascent, individuals, rounds = _climb(search, vector, num_draws, generator, least, held)
    optimum, gain = ascent.optimum, ascent.gain
    free = ~ascent.held
    curvature = laplace_covariance(
        search.objective(ascent.likelihood), optimum.vector, search.scale, free=free
    )
    names = zip(structure.population_names, (ascent.held & ~held).tolist(), strict=True)
    vanished = [name for name, gone in names if gone]
    fresh = search.draw(optimum.vector, num_draws, generator, individuals, quiet=False)
    few = float(fresh.estimate.ess.median()) < MIN_EFFICIENCY * num_draws
    covered = not few and gain < MAX_GAIN
    return PopulationFit(
        model=model,
        guide=guide,
        cohort=cohort,
        structure=structure,
        criterion=criterion,
        vector=optimum.vector,
        covariance=curvature.covariance
        if covered
        else torch.full_like(curvature.covariance, torch.nan),
        individuals=fresh,
        marginal=summarize_weights(fresh),
        converged=optimum.converged and gain < least and curvature.is_maximum and covered,
        message=_message(optimum, rounds, gain, least, curvature.is_maximum, covered, vanished),
        num_rounds=rounds,
        search=search,
        fixed=tuple(fixed),
    )


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


def _climb(
    search: Search, vector: Tensor, num_draws: int, generator: Generator, least: float, held: Tensor
) -> tuple[Ascent, IndividualPosteriors, int]:
    """Draw and maximise in turn until fresh draws have nothing to gain; a quarter of the draws
    leads to the neighbourhood. A standard deviation that vanishes is doubled as long as it does.
    """
    individuals, ascent, rounds, near, fixed = None, None, 0, False, held
    few = min(num_draws, max(MIN_FEW, num_draws // 4))
    while True:
        num = num_draws if near else few
        individuals = search.draw(vector, num, generator, individuals)
        ascent = search.ascend(individuals, vector, held, last=ascent)
        held = ascent.held
        if not math.isfinite(ascent.gain):
            raise FitError(
                "The likelihood at the start is not finite.",
                "a start under which every individual's data are possible.",
                "pass another `start=`, or check the data against the model.",
            )
        vector, rounds = ascent.optimum.vector, rounds + 1
        wider = ascent.wider.masked_fill(fixed, 0.0)
        if bool(wider.any()) and rounds < MAX_ROUNDS:
            vector = vector + wider
            continue
        if (ascent.gain < least and near) or rounds == MAX_ROUNDS:
            return ascent, individuals, rounds
        near = near or ascent.gain < max(NEAR, len(search.cohort) / 2) or rounds == MAX_ROUNDS // 2


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
        parts.append(f"{', '.join(vanished)} cannot be told from zero, and is held")
    if not covered:
        parts.append("the draws do not follow the population, so there are no standard errors")
    if not is_maximum:
        parts.append(
            "the likelihood has no proper maximum: the data do not determine every parameter, or "
            "a standard deviation of the individual parameters may be zero"
        )
    return "; ".join(parts)
