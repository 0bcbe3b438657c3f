r"""The battery of checks of a fit or of a guide: one call, a table, a verdict in words.

The guide has the checks of :mod:`~pyro_amortized.diagnostics.guide_calibration`. A fit adds how it
ended and whether its data lie inside what the guide was trained on
(:mod:`~pyro_amortized.diagnostics.fit_checks`), whether measurements, events and random effects are
what the model says (:mod:`~pyro_amortized.diagnostics.measurements`,
:mod:`~pyro_amortized.diagnostics.events`, :mod:`~pyro_amortized.diagnostics.effects`), and mistakes
in the data (:mod:`~pyro_amortized.diagnostics.data_mistakes`). Every check is about the inference
(are the numbers right for this model?) or about the model (does it describe the data?), and the
verdict keeps the two apart.
"""

from dataclasses import dataclass, replace

import pandas
import torch
from torch import Generator, Tensor

from ..cohort import Cohort, Design
from ..errors import TrainingError
from ..guide import AmortizedGuide
from ..population.results.fit_result import PopulationFit
from ..runtime.arguments import check_is
from ..runtime.random_numbers import fork_seed, make_generator
from ..training.training_design import training_design
from .case_influence import case_influence_checks
from .check_results import Check, Status
from .data_check import DataCheck, check_data
from .data_mistakes.data_identity import identity_checks
from .data_mistakes.recorded_values import recorded_event_checks, recorded_value_checks
from .data_mistakes.written_data import written_data_checks
from .effects.random_effect_analysis import RandomEffectTests, random_effect_tests
from .effects.random_effect_checks import random_effect_checks
from .events.event_residuals import EventResiduals, event_checks, event_residuals
from .fit_checks import (
    estimation_checks,
    residual_checks,
    standard_error_checks,
    training_data_check,
)
from .guide_calibration.calibration import calibrate
from .guide_calibration.calibration_result import Calibration
from .guide_calibration.guide_checks import efficiency_checks, influence_checks, rank_checks
from .measurements.error_checks import error_checks
from .measurements.missingness_checks import missingness_checks
from .measurements.residual_analysis import Residuals, residuals
from .measurements.series_errors import series_error_checks
from .prior_checks import prior_checks, prior_data_check
from .result_selection import outcome_kinds


@dataclass(frozen=True)
class BatterySettings:
    """How much of a large cohort is looked at."""

    # Individuals whose residuals, random effects and data are looked at. The simulations of 10,000
    # individuals with ten values took 7 GB; 3,000 show every deviation that matters.
    max_individuals: int = 3_000


DIAGNOSIS = BatterySettings()


@dataclass(frozen=True, eq=False)
class Diagnosis:
    r"""The results of all checks. Made by :func:`diagnose`.

    Args:
        checks: The checks.
        calibration: Calibration of the guide; None for a fit without one.
        data: The individuals against the training data; None where fit or guide are missing.
        residuals: Residuals of every series of one channel; empty for a guide without a fit.
        random_effects: Tests of the random effects; None for a guide without a fit.
        events: Residuals of every series of events; empty for a guide without a fit.
    """

    checks: tuple[Check, ...]
    calibration: Calibration | None = None
    data: DataCheck | None = None
    residuals: tuple[Residuals, ...] = ()
    random_effects: RandomEffectTests | None = None
    events: tuple[EventResiduals, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(c.status != "failed" for c in self.checks)

    def status(self, name: str) -> Status:
        """Status of the first check with this name."""
        return next(c.status for c in self.checks if c.name == name)

    @property
    def verdict(self) -> str:
        """The result in words.

        It is one sentence, followed by a line for each check that did not pass.
        """
        failed = [c for c in self.checks if c.status == "failed"]
        look = [c for c in self.checks if c.status == "look"]
        if not failed and not look:
            return f"All {len(self.checks)} checks passed."
        num_failed = f"{len(failed)} of {len(self.checks)} checks failed"
        if any(c.about == "inference" for c in failed):
            opening = f"The results are NOT RELIABLE: {num_failed}."
        elif failed:
            opening = f"The inference passed, but THE MODEL DOES NOT FIT THE DATA: {num_failed}."
        else:
            opening = f"No check failed; a look at {len(look)} of {len(self.checks)} is advised."
        lines = [f"- {c.finding}" for c in failed + look]
        return "\n".join([opening, *lines])

    def table(self) -> pandas.DataFrame:
        """One row per check."""
        rows = [(c.name, c.status, c.value, c.num_tests, c.words, c.page) for c in self.checks]
        columns = ["check", "status", "value", "tests", "words", "page"]
        return pandas.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        return self.verdict


def diagnose(
    subject: PopulationFit | AmortizedGuide,
    design: Cohort | Design | None = None,
    *,
    num_individuals: int = 300,
    num_draws: int = 1000,
    seed: int = 0,
) -> Diagnosis:
    r"""Run the battery of checks on a fit, or on a guide alone.

    Args:
        subject: A fit (its guide, if it has one, data and residuals are checked), or a guide.
        design: Source of times, doses, covariates and missingness of the simulated individuals: a
            cohort or a design. Default: the cohort of the fit. A guide alone needs it.
        num_individuals: Number of simulated individuals of the calibration.
        num_draws: Draws per simulated individual.
        seed: Seed of all random numbers.

    Raises:
        SettingError: ``subject`` is neither a fit nor a guide.
        TrainingError: A guide is passed without a design.

    Example:
        ``print(diagnose(fit))``; ``diagnose(fit).table()``; ``plots.battery(diagnose(fit))``.
    """
    check_is("subject", subject, (PopulationFit, AmortizedGuide), "pass a fit or a guide.")
    generator = make_generator(seed)
    if isinstance(subject, AmortizedGuide):
        plan = _known_design(design)
        return Diagnosis(*_guide_checks(subject, plan, num_individuals, num_draws, generator))
    fit, guide = subject, subject.guide
    checks: list[Check] = []
    calibration: Calibration | None = None
    data: DataCheck | None = None
    if guide is not None:
        of_guide, calibration = _guide_checks(
            guide,
            design or fit.cohort,
            num_individuals,
            num_draws,
            generator,
            corrected=fit.estimator == "corrected",
        )
        checks += of_guide
        data = check_data(guide, fit.cohort, individuals=fit.individuals, seed=fork_seed(generator))
    checks += estimation_checks(fit) + standard_error_checks(fit)
    fit, of_size = _part(fit, generator)
    checks += of_size
    by_series, of_events = _residuals(fit, generator)
    checks += _file_checks(fit, by_series, generator)
    checks += [] if data is None else [training_data_check(data)]
    checks += _outcome_checks(fit, by_series, of_events)
    effects = random_effect_tests(fit, seed=fork_seed(generator))
    checks += random_effect_checks(effects) + case_influence_checks(fit)
    checks = _with_mistakes(fit, checks, generator)
    return Diagnosis(tuple(checks), calibration, data, by_series, effects, of_events)


def _known_design(design: Cohort | Design | None) -> Cohort | Design:
    """The design of the simulated individuals, which a guide alone does not have."""
    if design is None:
        raise TrainingError(
            "A guide was passed without a design.",
            "a cohort or a design for which individuals are simulated.",
            "pass `diagnose(guide, cohort)`, or pass a fit.",
        )
    return design


def _part(fit: PopulationFit, generator: Generator) -> tuple[PopulationFit, list[Check]]:
    """The fit with some of the individuals of a large cohort, and a check that says so."""
    num = len(fit.cohort)
    if num <= DIAGNOSIS.max_individuals:
        return fit, []
    rows = torch.randperm(num, generator=generator)[: DIAGNOSIS.max_individuals].sort().values
    words = (
        f"Residuals, random effects and data are those of {len(rows):,} of {num:,} individuals, "
        "chosen at random."
    )
    cohort = fit.cohort[rows]
    part = replace(
        fit,
        cohort=cohort,
        individuals=fit.individuals.take(rows),
        marginal=fit.marginal.take(rows),
        search=replace(fit.search, cohort=cohort),
    )
    return part, [Check("individuals that are looked at", "passed", len(rows), words, "model")]


def _residuals(
    fit: PopulationFit, generator: Generator
) -> tuple[tuple[Residuals, ...], tuple[EventResiduals, ...]]:
    """Residuals of every series of one channel, and of every series of events."""
    kinds = outcome_kinds(fit.structure)
    of_events = tuple(
        event_residuals(fit, series=n, seed=fork_seed(generator))
        for n, kind in kinds.items()
        if kind == "event"
    )
    series = [n for n in fit.structure.series if fit.cohort[n].values.dim() == 2]
    seed = fork_seed(generator)  # one for all: residuals of two series belong to the same draws
    return tuple(residuals(fit, series=n, seed=seed) for n in series), of_events


def _file_checks(
    fit: PopulationFit, by_series: tuple[Residuals, ...], generator: Generator
) -> list[Check]:
    """The checks of estimates and data against the prior, and of what occurs twice."""
    continuous = [n for n, kind in outcome_kinds(fit.structure).items() if kind == "continuous"]
    checks = [*prior_checks(fit, fork_seed(generator)), prior_data_check(fit)]
    sds = {r.series: _error_sds(fit.cohort, r) for r in by_series if r.kind == "continuous"}
    return checks + identity_checks(_measured(fit.cohort, by_series), continuous, sds)


def _with_mistakes(fit: PopulationFit, checks: list[Check], generator: Generator) -> list[Check]:
    """All checks with that of the file against one without a mistake, before the others that are
    about the model: their findings may follow from it.
    """
    of_model = [i for i, c in enumerate(checks) if c.about == "model"]
    beside = any(checks[i].status != "passed" for i in of_model)
    found = written_data_checks(fit, seed=fork_seed(generator), beside=beside)
    place = of_model[0] if of_model else len(checks)
    return [*checks[:place], *found, *checks[place:]]


def _error_sds(cohort: Cohort, residuals: Residuals) -> Tensor:
    """Standard deviations of the errors, NaN where they are not known, shape ``(individual,
    time)``.
    """
    observed = cohort[residuals.series].observed
    sds = torch.full(observed.shape, torch.nan, dtype=torch.float64)
    sds[observed] = ((residuals.observed - residuals.individual) / residuals.iwres).abs().double()
    return sds


def _measured(cohort: Cohort, by_series: tuple[Residuals, ...]) -> Cohort:
    """The cohort without its values at a limit of quantification, which many individuals share."""
    kept = {}
    for one in by_series:
        observed = cohort[one.series].observed.clone()
        observed[cohort[one.series].observed] = ~one.censored
        kept[one.series] = observed
    return cohort.with_observed(kept) if kept else cohort


def _outcome_checks(
    fit: PopulationFit, by_series: tuple[Residuals, ...], of_events: tuple[EventResiduals, ...]
) -> list[Check]:
    """The checks of the residuals and of what is missing."""
    kinds = outcome_kinds(fit.structure)
    scores = fit.scores[:, fit.estimated].numpy() if fit.estimator == "corrected" else None
    checks = [check for one in by_series for check in residual_checks(one)]
    for one in by_series:
        checks += error_checks(one, fit.cohort, scores)
        if kinds[one.series] == "continuous":
            checks += recorded_value_checks(one, fit.cohort)
    checks += series_error_checks(by_series, fit.cohort, scores)
    for one_event in of_events:
        checks += event_checks(one_event, fit.cohort)
        checks += recorded_event_checks(one_event, fit.cohort)
    return checks + [check for one in by_series for check in missingness_checks(fit, one)]


def _guide_checks(
    guide: AmortizedGuide,
    design: Cohort | Design,
    num_individuals: int,
    num_draws: int,
    generator: Generator,
    *,
    corrected: bool = True,
) -> tuple[tuple[Check, ...], Calibration]:
    """The checks of a guide on simulated individuals, and its calibration; ``corrected`` says
    whether results are corrected by the density of the model, if it has one.
    """
    calibration = calibrate(
        guide,
        design,
        num_individuals=num_individuals,
        num_draws=num_draws,
        seed=fork_seed(generator),
    )
    plan = training_design(guide.structure, design)
    checks = rank_checks(calibration, corrected=corrected) + efficiency_checks(calibration)
    checks += influence_checks(guide, plan, calibration, generator)
    return tuple(checks), calibration
