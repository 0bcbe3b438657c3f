r"""Estimation of the population parameters by maximum marginal likelihood, or posterior mode.

Starting values are found with few draws. From the best one, rounds of drawing and maximising follow
until a round on new draws has nothing to gain,

.. math:: \Psi^{(r+1)} = \arg\max_\Psi \sum_i \log \hat p_r(y_i \mid \Psi),

where the draws of round r were made at :math:`\Psi^{(r)}`. The curvature at the end gives the
covariance of the estimates, and new draws give the likelihood that is reported.
"""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..guide import AmortizedGuide
from ..guide.learned_likelihood import structure_to_fit
from ..model import Estimator, Model, ModelStructure, Population
from ..runtime.arguments import check_count, check_is, check_number
from ..runtime.progress import counting_steps, showing_progress
from ..runtime.random_numbers import make_generator
from ..runtime.solver_context import failures_in_one_line
from ..runtime.threads import threads_for
from ..sampling.individuals import MIN_DRAWS
from .levels.level_sites import check_no_levels
from .likelihood.likelihood_choice import is_large
from .prior_predictions import warn_unusual_data
from .results.equal_values import warn_equal_values
from .results.fit_folder import FitFolder
from .results.fit_result import PopulationFit
from .results.likelihood_precision import with_precision
from .results.retraining import reasons_to_retrain, retrained
from .results.rounds_result import fit_of_rounds
from .search.draw_numbers import default_num_draws, schedule_of, with_more_draws
from .search.estimation_settings import ESTIMATION
from .search.fit_rounds import Rounds, Start, continue_rounds, first_progress
from .search.maximum_search import Criterion, Search
from .search.other_starts import other_start
from .search.round_progress import RoundProgress
from .search.round_schedule import RoundSchedule
from .search.starting_values import find_start


@dataclass(frozen=True, eq=False)
class FitRequest:
    """What is asked of a fit, besides model, data, guide and start: arguments of
    :func:`fit_population` under their names, and which function of the population is maximised.
    """

    fixed: Population | None = None
    criterion: Criterion = "maximum likelihood"
    num_draws: int | None = None
    num_starts: int = 4
    estimator: Estimator | None = None
    seed: int = 0
    precision: float | None = None


def fit_population(
    model: Model,
    cohort: Cohort,
    *,
    guide: AmortizedGuide | None = None,
    start: Population | None = None,
    fixed: Population | None = None,
    maximum_a_posteriori: bool = False,
    num_draws: int | None = None,
    precision: float | None = None,
    num_starts: int = 4,
    estimator: Estimator | None = None,
    retrain: bool | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> PopulationFit:
    r"""Fit a population model by maximum marginal likelihood.

    Args:
        model: The population model: that of the guide, or another one with the same individual
            sites.
        cohort: The data.
        guide: A trained guide, which makes the fit of a model without a density possible. Its draws
            serve individuals for which they are good enough. Default: the individuals are drawn
            without one.
        start: Population to start from. Default: the best of the median of the prior and some of
            its draws, improved on a part of the individuals.
        fixed: Values of population sites that are not estimated.
        maximum_a_posteriori: Add the log prior density (in the support, as Pyro's ``AutoDelta``).
        num_draws: Draws per individual and round. Default: 300, and from 100 individuals on
            3,000 / sqrt(N), at least 100 (the result has at least 200); up to 2,000 where the Monte
            Carlo error of an estimate (``fit.monte_carlo_errors``) would be more than 0.02 standard
            errors otherwise.
        precision: Monte Carlo standard error of -2LL. Further draws are made at the estimates until
            it is reached, as far as this is affordable; the summary shows what was reached.
            Default: 0.1, and as many draws as ``num_draws`` says where this is given.
        num_starts: Number of populations, the median of the prior among them, that are compared;
            the best of them is improved.
        estimator: ``"corrected"`` by the density of the model, or ``"likelihood-free"``: by the
            density that the guide has learned (see
            :mod:`pyro_amortized.guide.learned_likelihood`). Default: corrected if the model has a
            density. ``fit.estimator`` and the summary say which.
        retrain: Train the guide further around the fit, and fit once more with it, starting from
            the first fit; ``fit.guide`` is then the new guide. Default: if there are reasons for it
            (:func:`~pyro_amortized.population.results.retraining.reasons_to_retrain`), with a
            warning.
        seed: Seed of all draws.
        folder: Where what the fit has come to is kept after every round. The same call goes on from
            there if it was interrupted, and ends with the same numbers; a finished fit is read from
            there. Rounds with more draws than the default, and a further training of the guide,
            are made again.
        progress: Show a progress bar of the rounds on standard error.

    Returns:
        The fit; ``fit.converged`` and ``fit.message`` say how it ended.

    Note:
        Under ``joblib.parallel_config`` the individuals of a large cohort are drawn in several
        processes, with the same result.

    Raises:
        FitError: No start has a finite likelihood, the data of an individual are all but impossible
            there, all population parameters are fixed, or the folder holds another fit.
        GuideError: The individual sites of the model differ from those of the guide.
    """
    begin = time.perf_counter()
    criterion: Criterion = "maximum a posteriori" if maximum_a_posteriori else "maximum likelihood"
    _check_numbers(num_starts, num_draws, precision)
    _check_retrain(guide, retrain)
    if precision is None and num_draws is None:
        precision = ESTIMATION.precision
    request = FitRequest(fixed, criterion, num_draws, num_starts, estimator, seed, precision)
    place = _folder(folder, request, retrain)
    with showing_progress(progress), failures_in_one_line("fit"):
        first = fit_once(model, cohort, request, guide, start, place)
    reasons = [] if guide is None or retrain is not None else reasons_to_retrain(first)
    if not (retrain or reasons):
        if place is not None:
            place.finish(first)
        return first
    new_guide = retrained(first, reasons, seed)
    with showing_progress(progress), failures_in_one_line("fit"):
        second = fit_once(model, cohort, request, new_guide, first.estimates)
    message = f"{second.message}; the guide was trained again around a fit"
    return replace(second, message=message, seconds=time.perf_counter() - begin)


def _check_numbers(num_starts: int, num_draws: int | None, precision: float | None) -> None:
    """Check the numbers among the arguments of a fit."""
    check_count("num_starts", num_starts, error=FitError)
    if num_draws is not None:
        check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
    if precision is not None:
        check_number("precision", precision, 0, with_low=False, error=FitError)


def _check_retrain(guide: AmortizedGuide | None, retrain: bool | None) -> None:
    if guide is None and retrain:
        raise FitError(
            "`retrain=True` without a guide.",
            "a guide that can be trained further.",
            "pass `guide=`, or leave `retrain` out.",
        )


def _folder(
    folder: str | Path | None, request: FitRequest, retrain: bool | None
) -> FitFolder | None:
    """The folder of a fit, if the user names one."""
    if folder is None:
        return None
    check_is("folder", folder, (str, Path), "pass the folder's path.", FitError)
    names = ("num_draws", "precision", "num_starts", "seed")
    settings = {name: getattr(request, name) for name in names}
    return FitFolder(Path(folder), settings | {"retrain": retrain})


def fit_once(
    model: Model,
    cohort: Cohort,
    request: FitRequest,
    guide: AmortizedGuide | None = None,
    start: Population | None = None,
    folder: FitFolder | None = None,
) -> PopulationFit:
    """One fit without retraining; arguments as in :func:`fit_population`."""
    begin, generator = time.perf_counter(), make_generator(request.seed)
    structure = structure_to_fit(model, cohort, guide, request.estimator)
    num_draws = request.num_draws or default_num_draws(structure, cohort)
    fixed = structure.check_values(request.fixed or {})
    check_no_levels(structure, cohort, fixed, request.criterion)
    held = _held(structure, fixed)
    search = Search.begin(structure, guide, cohort, request.criterion, generator)
    if request.criterion == "maximum likelihood":
        warn_equal_values(structure, cohort)
    if folder is not None:
        folder.claim(search, _named(start, "start") | _named(fixed, "fixed"))
        finished = folder.finished(model, guide)
        if finished is not None:
            return finished
    with threads_for(num_draws * cohort.num_values), counting_steps("fit", unit="round"):
        schedule = schedule_of(search, num_draws, len(held))
        if request.precision is not None:
            schedule = with_more_draws(schedule, structure, cohort)
        progress = None if folder is None else folder.restored(search, generator)
        if progress is None:
            begin_at = _start(search, start, request.num_starts, fixed, generator)
            progress = first_progress(search, begin_at, schedule, generator)
        rounds = _finite_rounds(search, progress, held, schedule, generator, folder)
        first = fit_of_rounds(model, rounds, fixed)
        best = _from_other_start(first, start, request.num_starts, schedule, generator)
        return replace(
            _scored(best, request.precision, generator), seconds=time.perf_counter() - begin
        )


def _from_other_start(
    fit: PopulationFit,
    start: Population | None,
    num_starts: int,
    schedule: RoundSchedule,
    generator: Generator,
) -> PopulationFit:
    """The fit, or one with a higher likelihood from another start, where there is one: what the
    data do not determine where it ended, they may determine at their maximum. A fit from a start
    that was given stays as it is.
    """
    if start is not None or not fit.undetermined:
        return fit
    search, fixed = fit.search, {name: fit.estimates[name] for name in fit.fixed}
    found = other_start(search, fit.vector, num_starts=num_starts, fixed=fixed, generator=generator)
    if found is None:
        return fit
    progress = first_progress(search, found, schedule, generator)
    held = search.structure.coordinates(fixed)
    rounds = _finite_rounds(search, progress, held, schedule, generator)
    other = fit_of_rounds(fit.model, rounds, fixed)
    is_higher = search.value_of(other.individuals) > search.value_of(fit.individuals)
    return other if is_higher and len(other.undetermined) < len(fit.undetermined) else fit


def _scored(fit: PopulationFit, precision: float | None, generator: Generator) -> PopulationFit:
    """The fit with the likelihood as precise as it is wanted."""
    marginal = fit.marginal
    if precision is not None:
        marginal = with_precision(fit.search, fit.individuals, precision, generator)
    if is_large(fit.structure, fit.cohort):
        marginal = marginal.without_log_bias()
    return replace(fit, marginal=marginal)


def _named(values: Population | None, what: str) -> dict[str, Tensor]:
    """Values of population sites under names that say what they are for."""
    return {f"{what} {name}": torch.as_tensor(x) for name, x in (values or {}).items()}


def _finite_rounds(
    search: Search,
    progress: RoundProgress,
    held: Tensor,
    schedule: RoundSchedule,
    generator: Generator,
    folder: FitFolder | None = None,
) -> Rounds:
    """All rounds, if the likelihood at the start is finite; kept in the folder, if there is one."""
    keep = None if folder is None else folder.keep
    rounds = continue_rounds(search, progress, held, schedule, generator, keep)
    if not math.isfinite(rounds.ascent.gain):
        raise FitError(
            "The likelihood at the start is not finite.",
            "a start under which every individual's data are possible.",
            "pass another `start=`, or check the data against the model.",
        )
    return rounds


def refit(
    fit: PopulationFit,
    model: Model,
    start: Population,
    seed: int = 0,
    fixed: Population | None = None,
) -> PopulationFit:
    r"""Fit another model of the same individual parameters, near a fit.

    The mixtures of the individuals of the fit are tried first. There are at most as many draws as
    a fit begins with, and none for the precision of -2LL: differences on common draws
    (:func:`~pyro_amortized.difference`) need none.

    Args:
        fit: The fit.
        model: The other model.
        start: Its population at the start, near its estimates.
        seed: Seed of all draws.
        fixed: Values of population sites that are not estimated. Default: those of the fit.
    """
    begin, generator = time.perf_counter(), make_generator(seed)
    structure = structure_to_fit(model, fit.cohort, fit.guide, fit.estimator)
    known = {name: fit.estimates[name] for name in fit.fixed if name in structure.population}
    held_values = known if fixed is None else dict(fixed)
    search = Search.begin(structure, fit.guide, fit.cohort, fit.criterion, generator)
    held = _held(structure, structure.check_values(held_values))
    num_draws = min(fit.individuals.num_draws, default_num_draws(structure, fit.cohort))
    with threads_for(num_draws * fit.cohort.num_values), counting_steps("fit", unit="round"):
        begin_at = _start(search, start, 1, held_values, generator)
        begin_at = begin_at._replace(known=fit.individuals.refinement)
        schedule = schedule_of(search, num_draws, len(held))._replace(first_draws=num_draws)
        progress = first_progress(search, begin_at, schedule, generator)
        rounds = _finite_rounds(search, progress, held, schedule, generator)
        result = fit_of_rounds(model, rounds, held_values)
    return replace(result, seconds=time.perf_counter() - begin)


def _start(
    search: Search,
    start: Population | None,
    num_starts: int,
    fixed: dict[str, Tensor],
    generator: Generator,
) -> Start:
    """The given start, or the best of some from the prior, improved."""
    structure = search.structure
    if start is not None:
        start = structure.check_population(dict(start) | fixed)
        return Start(structure.unconstrain_population(start))
    warn_unusual_data(structure, search.cohort)
    return find_start(search, num_starts=num_starts, fixed=fixed, generator=generator)


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
