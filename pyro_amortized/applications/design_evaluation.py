r"""Evaluation of designs before a study: which errors will the estimates have?

The expected information of every design (:mod:`pyro_amortized.applications.expected_information`)
gives expected standard errors, which are compared between sampling schedules and numbers of
individuals, and the power to find the effect of a covariate.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator

from ..cohort import Cohort
from ..errors import SettingError
from ..runtime.arguments import check_count, check_is
from ..runtime.random_numbers import make_generator
from .design_result import DesignEvaluation, ExpectedErrors
from .expected_information import simulated_information
from .population_source import FittedPopulation, Source, source_of


def evaluate_designs(
    fit: FittedPopulation,
    designs: Cohort | Mapping[str, Cohort],
    *,
    num_individuals: int | None = None,
    fixed: Sequence[str] | None = None,
    num_simulated: int = 500,
    seed: int | Generator = 0,
) -> DesignEvaluation:
    r"""Expected standard errors of designs, from exact scores of simulated individuals.

    Args:
        fit: A fit, or ``population(model, estimates)`` with the values to plan for.
        designs: A design (what :func:`~pyro_amortized.nlme.studies.study` gives, or data whose
            values are ignored), or several by name. Its individuals may differ in times, doses and
            covariates.
        num_individuals: Number of individuals of the study, in the proportions of the design.
            Default: that of the design.
        fixed: Names of population sites that will not be estimated. Default: those that the fit
            did not estimate either.
        num_simulated: Individuals that are simulated for each design; the result states the Monte
            Carlo errors.
        seed: Seed or generator.

    Returns:
        A mapping from the name of a design to its expected errors; ``print`` shows a table, and
        :func:`~pyro_amortized.diagnostics.plots.dose_plots.expected_errors` draws it.

    Raises:
        SettingError: An argument is of the wrong kind, or all parameters are fixed.
        FitError: The model cannot be simulated under a design.
        ModelError: The model has no density, or a value of the population is outside its support.

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
        >>> design = nlme.study([1, 4], nlme.regimen(100), num_individuals=20, series="y")
        >>> errors = evaluate_designs(population(model, {"cl": 4.0}), design, num_simulated=40)
        >>> round(float(errors["design"].standard_errors["cl"]), 1)  # 4 * 0.3 / sqrt(20)
        0.3
    """
    check_count("num_simulated", num_simulated, least=20)
    if num_individuals is not None:
        check_count("num_individuals", num_individuals)
    named = _named_designs(designs)
    source, generator = source_of(fit), make_generator(seed)
    fixed = _fixed_sites(source, fixed)
    evaluated = {}
    for name, design in named.items():
        simulated = simulated_information(source, design, num_simulated, generator)
        structure = simulated.structure
        evaluated[name] = ExpectedErrors(
            name,
            structure,
            simulated.vector,
            simulated.scores,
            simulated.products,
            num_individuals or simulated.num_individuals,
            ~structure.coordinates(fixed) if fixed else torch.ones_like(simulated.vector).bool(),
            simulated.num_unreliable,
        )
    return DesignEvaluation(evaluated)


def _named_designs(designs: Cohort | Mapping[str, Cohort]) -> dict[str, Cohort]:
    """The designs by name, of which there must be one."""
    named = dict(designs) if isinstance(designs, Mapping) else {"design": designs}
    for name, design in named.items():
        check_is(f"designs[{name!r}]", design, Cohort, "pass what `nlme.study` gives.")
    if not named:
        raise SettingError("There are no designs.", "one or more.", "pass `nlme.study(...)`.")
    return named


def _fixed_sites(source: Source, fixed: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the population sites that are not estimated; by default those of the fit."""
    if fixed is None:
        fixed = () if source.fit is None else source.fit.fixed
    fixed = (fixed,) if isinstance(fixed, str) else tuple(fixed)
    unknown = [name for name in fixed if name not in source.estimates]
    if unknown or (source.estimates and len(set(fixed)) == len(source.estimates)):
        raise SettingError(
            f"`fixed` is {list(fixed)}.",
            f"some, but not all of {list(source.estimates)}.",
            "correct `fixed=`.",
        )
    return fixed
