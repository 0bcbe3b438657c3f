r"""Simulation of individuals under dosing regimens.

The same individuals receive every regimen, so that regimens are compared on common draws. The
predictions of all draws of one regimen are computed together; see
:mod:`pyro_amortized.applications.simulated_individuals` for what varies between the draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..cohort import Cohort, Doses
from ..errors import FitError
from ..model.predictions import default_quantity, predict, predicted_parts
from ..nlme.adaptive_regimens import AdaptiveRegimen
from ..nlme.regimens import Regimen
from ..population.levels.level_result import LevelFit
from ..runtime.arguments import check_count, check_is
from ..runtime.random_numbers import make_generator
from ..runtime.threads import threads_for
from ..runtime.user_warnings import warn_user
from .adaptive_doses import run_adaptive
from .covariate_arms import Arm
from .exposure import Exposure, panels
from .individuals_by_regimen import (
    individuals_by_regimen,
    new_of_source,
    number_of_new,
    same_for_all,
)
from .new_units import source_of_new_units
from .population_source import FittedPopulation, Source, source_of
from .recipients import Covariates, Occasion, Recipients, seen_recipients
from .regimen_names import AnyRegimen, Regimens
from .simulated_individuals import (
    Individuals,
    Uncertainty,
    check_no_new,
    check_no_start,
    check_uncertainty,
    seen_individuals,
)
from .simulated_plans import doses_of, named_plans, plan_of, prediction_times
from .simulation_result import Simulation


@dataclass(frozen=True)
class SimulationSettings:
    r"""Defaults of a simulation.

    Args:
        num_individuals: New individuals.
        num_times: Times of the default grid, its ends included.
        max_double: Values of a result from which on they are stored in single precision.
    """

    num_individuals: int = 1000
    num_times: int = 41
    max_double: int = 20_000_000


DEFAULTS = SimulationSettings()
SEEN = "pass the data of individuals, as `nlme.read_table` gives them."


def simulate(
    fit: FittedPopulation | LevelFit,
    regimens: Regimens | Cohort,
    *,
    num_individuals: int | None = None,
    uncertainty: Uncertainty | None = None,
    conditional_on: Cohort | None = None,
    times: Sequence[float] | Tensor | None = None,
    covariates: Covariates | None = None,
    exposure: Exposure | None = None,
    quantity: str | None = None,
    start: float | None = None,
    occasion: Occasion = "new",
    num_draws: int = 200,
    seed: int | Generator = 0,
) -> Simulation:
    r"""Simulate new individuals, or the ones that were seen, under dosing regimens.

    Args:
        fit: A fit, posterior draws of its population, a bootstrap, or
            ``population(model, estimates)``. Of a fit with a level, all units are new ones, with
            effects of their own in each draw; ``fit.given_effects()`` stands for the units seen.
        regimens: What :func:`~pyro_amortized.nlme.regimens.regimen` or
            :func:`~pyro_amortized.nlme.adaptive_regimens.adaptive` gives: one, several, or several
            by name. Where arms differ by covariates and not by recorded doses, the covariates of
            each arm by its name, ``{"placebo": {"DOSE": 0}, "50 mg": {"DOSE": 50}}``. Or a design:
            a cohort, whose individuals have doses and covariates of their own; its times and
            values are ignored.
        num_individuals: Number of new individuals. Default: as many as a covariate has values,
            else 1000; 1 without any uncertainty.
        uncertainty: What varies between the draws: ``"population and individuals"``,
            ``"individuals"`` (at the estimates), or ``"none"`` (the typical individual, or the
            posterior means of seen individuals; no residual error). Default: the first where the
            uncertainty of the population is known, else the second.
        conditional_on: Data of individuals: they are simulated, given their data, in place of new
            ones. The population is not fitted to these data.
        times: Times of prediction, counted from the begin of the regimen. Default: 41 times until
            the end of the longest regimen and of the window of the exposure.
        covariates: Covariates of the new individuals by name, one value or one per individual, a
            data frame with a row for each, or a cohort to draw individuals from. Default: drawn
            from the cohort of the fit.
        exposure: Window and threshold of the exposure metrics. Default: the last dosing interval,
            or until the last of ``times`` for a single dose.
        quantity: Name of a series (of events: the probability of none until each time), or of a
            ``pyro.deterministic`` site of shape ``(individual, time)``. Default: the first series.
        start: For seen individuals: time on their clock at which the regimen begins; earlier doses
            still act. Default: after their last record, with earlier doses washed out.
        occasion: For seen individuals with occasions (column OCC): the regimen belongs to a
            ``"new"`` occasion or to the ``"last"``.
        num_draws: Number of populations, or of posterior draws of each seen individual.
        seed: Seed or generator.

    Returns:
        Predictions, observations and exposures. ``print`` shows the table of the exposures;
        ``.table``, ``.bands()``, ``.to_dataframe()`` are data frames,
        :func:`~pyro_amortized.diagnostics.to_arviz` exports it, and
        :func:`~pyro_amortized.diagnostics.plots.simulation_plots.simulated_bands` draws it.

    Raises:
        SettingError: An argument is of the wrong kind, or the exposure has no window.
        FitError: The uncertainty of the population is wanted and not known.
        ModelError: The model cannot be run, or has no such quantity.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_amortized import nlme, population
        >>> def model(cohort):
        ...     cl = pyro.sample("cl", dist.LogNormal(0.0, 1.0))
        ...     with pyro.plate("individual", len(cohort)):
        ...         phi = pyro.sample("phi", dist.LogNormal(cl.log(), 0.3))
        ...         y, v = cohort["y"], torch.full_like(phi, 20.0)
        ...         f = nlme.one_compartment(y.times, cohort.doses, cl=phi, v=v)
        ...         error = nlme.additive_error(f, torch.tensor(0.1))
        ...         pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)
        >>> regimen = nlme.regimen(100, 12, steady_state=True)
        >>> result = simulate(population(model, {"cl": 4.0}), regimen, uncertainty="none")
        >>> round(float(result.exposures["auc"][regimen.label]), 2)
        25.0
    """
    _check_numbers(uncertainty, num_draws, num_individuals)
    if isinstance(regimens, Cohort):
        check_no_new(num_individuals, covariates, "a design")
    source, generator = _source(fit, num_draws, uncertainty, conditional_on, seed)
    named, exposure = named_plans(regimens, exposure or Exposure(), times, source.cohort)
    grid = prediction_times(times, named, exposure, DEFAULTS.num_times)
    if conditional_on is None:
        check_no_start(start)
        if isinstance(regimens, Cohort):
            covariates, num_individuals = regimens, len(regimens)
        given = (num_individuals, covariates, uncertainty, DEFAULTS.num_individuals)
        who = new_of_source(source, named, covariates, number_of_new(source, *given), generator)
        drawn = (grid, uncertainty, num_draws, generator)
        individuals, used = individuals_by_regimen(source, who, named, *drawn)
    else:
        check_is("conditional_on", conditional_on, Cohort, SEEN)
        check_no_new(num_individuals, covariates, "`conditional_on`")
        parts = (source.named(conditional_on), start, occasion, source.cohort)
        who, data = seen_recipients(source.series, *parts)
        seen, used = seen_individuals(source, data, uncertainty, num_draws, generator)
        individuals = same_for_all(seen, named)
    settings = _Settings(named, grid, exposure, quantity, used, conditional_on is not None)
    with threads_for(len(next(iter(individuals.values())).unconstrained) * len(who) * len(grid)):
        return _simulated(settings, who, individuals, generator)


def _source(
    fit: FittedPopulation | LevelFit,
    num_draws: int,
    uncertainty: Uncertainty | None,
    conditional_on: Cohort | None,
    seed: int | Generator,
) -> tuple[Source, Generator]:
    """The population, and the generator of everything."""
    generator = make_generator(seed)
    if isinstance(fit, LevelFit):
        if conditional_on is not None:
            raise FitError(
                "`conditional_on` together with a fit with a level.",
                "individuals of units that were seen.",
                "pass `fit.given_effects()` in place of the fit.",
            )
        return source_of_new_units(fit, num_draws, uncertainty, generator), generator
    return source_of(fit), generator


def _check_numbers(
    uncertainty: Uncertainty | None, num_draws: int, num_individuals: int | None
) -> None:
    """Check the uncertainty and the numbers among the arguments."""
    check_uncertainty(uncertainty)
    check_count("num_draws", num_draws)
    if num_individuals is not None:
        check_count("num_individuals", num_individuals)


@dataclass(frozen=True, eq=False)
class _Settings:
    """What is simulated: regimens by name, times, exposure, quantity, uncertainty."""

    regimens: Mapping[str, AnyRegimen]
    times: Tensor
    exposure: Exposure
    quantity: str | None
    uncertainty: Uncertainty
    seen: bool


class _UnderRegimen(NamedTuple):
    """What was simulated under one regimen; ``amounts`` has shape ``(draw, individual, dose)``."""

    prediction: Tensor
    observation: Tensor | None
    exposures: dict[str, Tensor]
    amounts: Tensor


def _under_regimen(
    settings: _Settings,
    regimen: AnyRegimen,
    who: Recipients,
    individuals: Individuals,
    generator: Generator,
) -> _UnderRegimen:
    """Predictions, observations and exposures under one regimen."""
    num_draws, num = individuals.unconstrained.shape[:2]
    who = who.after(plan_of(regimen))
    who = regimen.recipients(who) if isinstance(regimen, Arm) else who
    doses: Doses | None
    if isinstance(regimen, AdaptiveRegimen):
        people, doses = run_adaptive(regimen, who, individuals, settings.quantity, generator)
    else:
        people, doses, num_draws = who, doses_of(regimen, who), 1
    predicted = predict(
        individuals.structure,
        people.cohort(settings.times, doses),
        individuals.unconstrained,
        individuals.population,
        quantity=settings.quantity,
        generator=None if settings.uncertainty == "none" else generator,
        dtype=_stored_dtype(individuals.unconstrained, settings.times),
    )
    amounts = torch.zeros(num_draws, num, 0) if doses is None else doses.amounts
    return _UnderRegimen(
        predicted.prediction,
        predicted.observation,
        _exposures(settings, plan_of(regimen), people, individuals, doses),
        amounts.reshape(num_draws, num, amounts.shape[-1]),
    )


def _simulated(
    settings: _Settings,
    who: Recipients,
    individuals: Mapping[str, Individuals],
    generator: Generator,
) -> Simulation:
    """The simulation under every regimen."""
    parts = {
        name: _under_regimen(settings, regimen, who, individuals[name], generator)
        for name, regimen in settings.regimens.items()
    }
    failed = sum(int((~x.prediction.isfinite()).any(-1).sum()) for x in parts.values())
    if failed:
        warn_user(
            f"{failed} of the simulated profiles are not finite; they are left out of tables and "
            "bands. Check the population parameters, or pass less uncertain ones."
        )
    observation = {n: x.observation for n, x in parts.items() if x.observation is not None}
    metrics = next(iter(parts.values())).exposures
    structure = next(iter(individuals.values())).structure
    return Simulation(
        tuple(settings.regimens),
        settings.quantity or default_quantity(structure, who.baseline),
        who.ids,
        settings.times,
        {name: x.prediction for name, x in parts.items()},
        observation or None,
        {metric: {n: x.exposures[metric] for n, x in parts.items()} for metric in metrics},
        settings.exposure,
        {name: x.amounts for name, x in parts.items()},
        settings.uncertainty,
        settings.seen,
        failed,
    )


def _stored_dtype(unconstrained: Tensor, times: Tensor) -> torch.dtype:
    """Single precision for large results, which halves their memory."""
    num_values = unconstrained.shape[0] * unconstrained.shape[1] * len(times)
    return torch.float32 if num_values > DEFAULTS.max_double else torch.float64


def _exposures(
    settings: _Settings,
    plan: Regimen,
    people: Recipients,
    individuals: Individuals,
    doses: Doses | None,
) -> dict[str, Tensor]:
    """Exposure metrics of one regimen, shape ``(draw, individual)`` each."""
    exposure = settings.exposure
    if exposure.steady_state and doses is not None:
        window = exposure.window(plan)
        numbers = [row[1] for row in plan.steady_rows(*window)]
        given = doses.amounts[:, numbers]  # an adaptive rule may have decided them
        plan = replace(plan.at_steady_state(*window), amounts=(1.0,) * len(numbers), per=None)
        people = people.after(plan)
        doses = plan.doses(len(people), start=people.start, factor=given)
    divided = panels(exposure.window(plan, float(settings.times[-1])), plan)
    parts = predicted_parts(
        individuals.structure,
        people.cohort(divided.nodes, doses),
        individuals.unconstrained,
        individuals.population,
        quantity=settings.quantity,
    )
    metrics = [divided.metrics(part.prediction, exposure.above) for _, part in parts]
    return {name: torch.cat([x[name] for x in metrics]) for name in metrics[0]}
