r"""Recommended doses from the complete posterior of a patient.

The posterior of the patient's parameters given the samples (the population alone without samples)
gives, for every dose, the distribution of a target metric. The best dose has the wanted probability
of the target, the largest one, or the smallest expected loss. All doses are compared on the same
draws.

References:
    Leven, Coste, Mané (2022), Free and open-source posologyr software for Bayesian dose
    individualization.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from ..errors import SettingError
from ..nlme.regimens import Regimen
from ..nlme.regimens import regimen as make_regimen
from ..runtime.arguments import check_count, check_is, check_number
from ..runtime.random_numbers import make_generator
from ..runtime.threads import threads_for
from .compared_doses import best_candidate, best_in_range, named_candidates
from .dose_criterion import DoseCriterion, DoseLoss
from .dose_response import Mixture
from .model_weights import prior_weights
from .patient_checks import unusual_patients, warn_unusual_patients
from .patient_posteriors import (
    Drawing,
    Earlier,
    Patient,
    default_num_draws,
    mixture_of,
    patient_draws,
    patients_as_cohort,
)
from .population_source import FittedPopulation, Source, source_of
from .recipients import Occasion
from .recommendation_result import Recommendation
from .targets import Target
from .uncertain_draws import DOSE_UNCERTAINTIES, DoseUncertainty

FittedPopulations = FittedPopulation | Mapping[str, FittedPopulation] | Sequence[FittedPopulation]


@dataclass(frozen=True)
class RecommendationSettings:
    r"""Accuracy of a recommended dose.

    Args:
        precision: Relative Monte Carlo error of a dose that further draws are made for.
        max_draws: Most draws per patient.
        max_total: Most draws of all patients together; further draws are not made beyond it.
        values_per_draw: Values of a curve that gives a metric, about; for the number of threads.
    """

    precision: float = 0.0025
    max_draws: int = 100_000
    max_total: int = 300_000
    values_per_draw: int = 30


SETTINGS = RecommendationSettings()


def recommend(
    fit: FittedPopulations,
    patient: Patient | None,
    candidates: tuple[float, float] | Sequence[float] | Mapping[str, Regimen] | Sequence[Regimen],
    *,
    target: Target,
    regimen: Regimen | None = None,
    probability: float | None = None,
    loss: DoseLoss | None = None,
    start: float | None = None,
    occasion: Occasion = "new",
    uncertainty: DoseUncertainty | None = None,
    model_weights: Mapping[str, float] | None = None,
    previous: Recommendation | None = None,
    num_draws: int | None = None,
    seed: int | Generator = 0,
) -> Recommendation:
    r"""The best dose of each patient, from the posterior given the samples.

    Args:
        fit: A fit, posterior draws of its population, a bootstrap, or ``population(model,
            estimates)``. Several, in a list or by name, are averaged by the marginal likelihood of
            the patient's samples.
        patient: Data of one or more patients; ``{covariate: value}`` for one without samples, a
            data frame of covariates for several; or None for one without covariates.
        candidates: A range ``(low, high)`` of amounts, in which the optimum is found; a list of
            amounts; or regimens, in a list or by name.
        target: What the dose should reach, for instance ``Target.auc(low=400, high=600)``.
        regimen: The regimen that is scaled to the amounts (its last dose has the amount; a loading
            dose changes in proportion). Default: a single dose at time 0.
        probability: Wanted probability of the target. With one end, the dose that reaches it: the
            smallest for ``low``, the largest for ``high``. With both ends the dose with the largest
            probability is taken, and it is said whether it reaches this one.
        loss: Loss as a function of the metric, a tensor of any shape; the dose with the smallest
            expected loss is taken. Default for a target with a ``value``: the squared logarithm of
            metric / value.
        start: Time on the clock of the patient at which the regimen begins; earlier doses still
            act. Default: the regimen is judged on its own, with earlier doses washed out.
        occasion: For patients with occasions (column OCC): the regimen belongs to a ``"new"``
            occasion or to the ``"last"``.
        uncertainty: ``"population and individuals"`` averages over draws of the population (normal
            with the covariance of a fit, or those of a posterior or a bootstrap), weighted by the
            likelihood of the patient's samples unless these are among the data of the fit;
            ``"individuals"`` takes the estimates. Default: the first where the uncertainty of the
            population is known.
        model_weights: Prior weights of several models, by name (``"1"``, ``"2"``, ... in a list).
            Default: by the BIC of fits of the same data, else equal.
        previous: The recommendation before the last samples: its draws are weighted by the new
            samples, and replaced only where too few stay effective.
        num_draws: Posterior draws per patient. Default: 2000, for many patients down to 500, and as
            many as a Monte Carlo error of 0.25 % of the dose needs (up to 100,000, and 300,000 of
            all patients together).
        seed: Seed or generator.

    Returns:
        The recommended dose of each patient with its probability, expected loss and Monte Carlo
        errors; ``print`` shows the table,
        :func:`~pyro_amortized.diagnostics.plots.dose_plots.recommended_dose` draws it.

    Raises:
        SettingError: The criterion is not complete, or candidates are not positive amounts or
            regimens.
        FitError: The uncertainty of the population is wanted, and not known.
        CohortError: A patient lacks a series or a covariate, or has a dose after ``start``.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_amortized import nlme, population
        >>> from pyro_amortized import Exposure
        >>> def model(cohort):
        ...     cl = pyro.sample("cl", dist.LogNormal(0.0, 1.0))
        ...     with pyro.plate("individual", len(cohort)):
        ...         phi = pyro.sample("phi", dist.LogNormal(cl.log(), 0.3))
        ...         y, v = cohort["y"], 20.0 + 0.0 * phi
        ...         f = nlme.one_compartment(y.times, cohort.doses, cl=phi, v=v)
        ...         error = nlme.additive_error(f, 0.1 + 0.0 * cl)
        ...         pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)
        >>> target = Target.auc(low=20, window=Exposure(steady_state=True))
        >>> result = recommend(
        ...     population(model, {"cl": 4.0}), None, [50, 100, 200], target=target,
        ...     regimen=nlme.regimen(1, 12, 2), probability=0.9,
        ... )
        >>> result.names
        ('200',)
    """
    criterion = DoseCriterion.of(target, probability, loss)
    _check_arguments(num_draws, uncertainty)
    template = make_regimen(1.0) if regimen is None else regimen
    check_is("regimen", template, Regimen, "pass what `nlme.regimen` gives.")
    named = _by_name(fit)
    sources = [source_of(x) for x in named.values()]
    prior = prior_weights(list(named), sources, model_weights)
    question = _Question(criterion, template, candidates)
    generator = make_generator(seed)
    cohort = patients_as_cohort(patient, sources[0], question.covariates)
    setting = _Setting(tuple(named), tuple(sources), prior, uncertainty, patient, start, occasion)
    first = num_draws or default_num_draws(len(cohort))
    earlier = None if previous is None else _earlier(previous, setting)
    result = _recommended(setting, question, earlier, first, generator)
    needed = _needed_draws(result, first) if num_draws is None else first
    if needed > first and not result.reweighted:
        begun = [Earlier(x, False) for x in result.posteriors]
        result = _recommended(setting, question, begun, needed, generator)
    warn_unusual_patients(dict(result.unusual))
    return result


def _check_arguments(num_draws: int | None, uncertainty: DoseUncertainty | None) -> None:
    """Check the number of draws and the uncertainty."""
    if num_draws is not None:
        check_count("num_draws", num_draws, least=100)
    if uncertainty not in (None, *DOSE_UNCERTAINTIES):
        raise SettingError(
            f"`uncertainty` is {uncertainty!r}.",
            f"one of {list(DOSE_UNCERTAINTIES)}.",
            "correct `uncertainty=`.",
        )


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked: which of some doses is the best."""

    criterion: DoseCriterion
    regimen: Regimen
    candidates: Any

    @property
    def covariates(self) -> set[str]:
        """Covariates that amounts are per unit of (mg/kg)."""
        named = self.candidates
        listed = list(named.values()) if isinstance(named, Mapping) else named
        found = listed if isinstance(listed, list | tuple) else []
        plans = [self.regimen, *(x for x in found if isinstance(x, Regimen))]
        return {x.per for x in plans if x.per is not None}


@dataclass(frozen=True, eq=False)
class _Setting:
    """Who is asked about: models with their prior weights, and patients."""

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    prior: Tensor
    uncertainty: DoseUncertainty | None
    patient: Patient | None
    start: float | None
    occasion: Occasion


def _by_name(fit: FittedPopulations) -> dict[str, FittedPopulation]:
    if isinstance(fit, Mapping):
        named = {str(name): x for name, x in fit.items()}
    elif isinstance(fit, list | tuple):
        named = {str(j + 1): x for j, x in enumerate(fit)}
    else:
        named = {"1": fit}  # type: ignore[dict-item]
    if not named:
        raise SettingError("There is no fit.", "one fit or several.", "pass a fit.")
    return named


def _needed_draws(result: Recommendation, num_draws: int) -> int:
    """Draws per patient with which the Monte Carlo errors of the doses are small enough."""
    relative = (result.amount_errors / result.amounts.clamp(min=1e-300))[result.inside]
    relative = relative[relative.isfinite()]
    if not len(relative):
        return num_draws
    factor = (float(relative.max()) / SETTINGS.precision) ** 2
    most = min(SETTINGS.max_draws, SETTINGS.max_total // len(result.ids))
    return max(num_draws, min(most, round(factor * num_draws)))


def _earlier(previous: Recommendation, setting: _Setting) -> list[Earlier]:
    """The draws of an earlier recommendation by model."""
    check_is("previous", previous, Recommendation, "pass what `recommend` gave before.")
    if tuple(previous.model_weights) != setting.names:
        raise SettingError(
            f"The models of `previous` are {list(previous.model_weights)}.",
            f"the same models: {list(setting.names)}.",
            "pass the same fits in the same order, or leave out `previous=`.",
        )
    return [Earlier(x, True) for x in previous.posteriors]


def _recommended(
    setting: _Setting,
    question: _Question,
    earlier: Sequence[Earlier] | None,
    num_draws: int,
    generator: Generator,
) -> Recommendation:
    """The recommendation with a number of draws."""
    parts, again = [], []
    for j, source in enumerate(setting.sources):
        cohort = patients_as_cohort(setting.patient, source, question.covariates)
        before = None if earlier is None else earlier[j]
        drawing = Drawing(setting.start, setting.occasion, setting.uncertainty, num_draws)
        drawn, used = patient_draws(source, cohort, drawing, before, generator)
        parts.append(drawn)
        again.append(used)
    mixture, shares = mixture_of(parts, setting.prior)
    with threads_for(mixture.weights.values.numel() * SETTINGS.values_per_draw):
        best = _best(mixture, question)
    unusual: dict[str, str] = {}
    best_model = shares.argmax(0)
    for j, (part, source) in enumerate(zip(parts, setting.sources, strict=True)):
        found = unusual_patients(part.posterior, part.posterior.cohort, source.cohort)
        ids = part.posterior.cohort.ids
        unusual |= {n: x for n, x in found.items() if int(best_model[ids.index(n)]) == j}
    return Recommendation(
        ids=parts[0].posterior.cohort.ids,
        target=question.criterion.target,
        criterion=question.criterion.label,
        model_weights=dict(zip(setting.names, shares, strict=True)),
        uncertainties={n: x.draws.kind for n, x in zip(setting.names, parts, strict=True)},
        unusual=unusual,
        posteriors=tuple(part.posterior for part in parts),
        reweighted=all(again),
        weights=mixture.weights.values,
        **best,
    )


def _best(mixture: Mixture, question: _Question) -> dict[str, Any]:
    """The best dose of each patient: fields of a :class:`Recommendation`."""
    q = question
    if (
        isinstance(q.candidates, tuple)
        and len(q.candidates) == 2
        and not any(isinstance(x, Regimen) for x in q.candidates)
    ):
        for x in q.candidates:
            check_number("candidates", x, 0, with_low=False)
        return best_in_range(mixture, q.regimen, q.candidates, q.criterion)
    named = named_candidates(q.candidates, q.regimen)
    return best_candidate(mixture, named, q.criterion)
