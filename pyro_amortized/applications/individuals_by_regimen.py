"""The new individuals of a simulation: how many, with which covariates, and under each regimen."""

from collections.abc import Mapping

from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import SettingError
from ..nlme.studies import covariate_columns, num_rows
from .covariate_arms import Arm
from .population_source import Source
from .recipients import Covariates, Recipients, new_recipients
from .regimen_names import AnyRegimen
from .simulated_individuals import Individuals, Uncertainty, new_individuals
from .simulated_plans import doses_of, plan_of


def individuals_by_regimen(
    source: Source,
    who: Recipients,
    regimens: Mapping[str, AnyRegimen],
    times: Tensor,
    uncertainty: Uncertainty | None,
    num_draws: int,
    generator: Generator,
) -> tuple[dict[str, Individuals], Uncertainty]:
    r"""New individuals by regimen, and the uncertainty that was used. All regimens have the same
    individuals; arms have their own, drawn with the same random numbers, since their covariates may
    change the distribution of the individual parameters.

    Args:
        source: The population.
        who: The individuals.
        regimens: The regimens by name.
        times: Times of prediction, shape ``(time,)``.
        uncertainty: As in :func:`~pyro_amortized.simulate`.
        num_draws: Number of populations.
        generator: Source of randomness.
    """
    state, shared = generator.get_state(), None
    result: dict[str, Individuals] = {}
    for name, regimen in regimens.items():
        is_arm = isinstance(regimen, Arm)
        if not is_arm and shared is not None:
            result[name] = shared
            continue
        generator.set_state(state)
        later = who.after(plan_of(regimen))
        later = regimen.recipients(later) if isinstance(regimen, Arm) else later
        design = later.cohort(times, doses_of(regimen, later))
        result[name], used = new_individuals(source, design, uncertainty, num_draws, generator)
        shared = shared if is_arm else result[name]
    return result, used


def same_for_all(
    individuals: Individuals, regimens: Mapping[str, AnyRegimen]
) -> dict[str, Individuals]:
    r"""Individuals that were seen, under every regimen.

    Raises:
        SettingError: A regimen is an arm of covariates.
    """
    arms = [name for name, x in regimens.items() if isinstance(x, Arm)]
    if arms:
        raise SettingError(
            f"The arm {arms[0]!r} of covariates together with `conditional_on`.",
            "new individuals, or regimens of doses: what was seen of an individual was seen under "
            "the covariates in the data.",
            "leave out `conditional_on=`, or change the covariates in its cohort where they do not "
            "act on what was seen.",
        )
    return dict.fromkeys(regimens, individuals)


def number_of_new(
    source: Source,
    num_individuals: int | None,
    covariates: Covariates | None,
    uncertainty: Uncertainty | None,
    num_default: int,
) -> int:
    """Number of new individuals, if the user names none: that of the covariates' values, or one
    where all would be the same.
    """
    rows = None
    if covariates is not None and not isinstance(covariates, Cohort):
        rows = num_rows(covariates)
    single = uncertainty == "none" and (source.cohort is None or covariates is not None)
    return num_individuals or rows or (1 if single else num_default)


def new_of_source(
    source: Source,
    regimens: Mapping[str, AnyRegimen],
    covariates: Covariates | None,
    num: int,
    generator: Generator,
) -> Recipients:
    """New individuals with covariates that the model or a regimen reads."""
    if isinstance(covariates, Cohort):
        covariates = source.named(covariates)
    elif covariates is not None:
        per = {plan_of(x).per for x in regimens.values()}  # mg/kg, also where the model reads none
        source.check_covariates(set(covariate_columns(covariates)) - per)
    source.check_covariates(
        {n for x in regimens.values() if isinstance(x, Arm) for n in x.covariates}
    )
    return new_recipients(source.series, source.cohort, covariates, num, generator)
