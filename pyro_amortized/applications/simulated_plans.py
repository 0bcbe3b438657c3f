"""The plans of a simulation: regimens by name, their doses, and the times of prediction."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..cohort import Cohort, Doses
from ..errors import SettingError
from ..nlme.regimens import Regimen
from ..runtime.arguments import check_is
from .covariate_arms import Arm, window_of_arms
from .design_doses import DesignDoses
from .exposure import Exposure
from .recipients import Recipients
from .regimen_names import AnyRegimen, Regimens, named_regimens


def named_plans(
    regimens: Regimens | Cohort,
    exposure: Exposure,
    times: Sequence[float] | Tensor | None,
    cohort: Cohort | None,
) -> tuple[dict[str, AnyRegimen], Exposure]:
    """The regimens by name, and the window of the exposure; a design is a regimen of its own, and
    ``cohort`` are the data of the fit.
    """
    check_is("exposure", exposure, Exposure, "pass `Exposure(start=, end=, above=)`.")
    if isinstance(regimens, Cohort):
        doses = DesignDoses(regimens)
        return {doses.label: doses}, doses.exposure(exposure)
    named = named_regimens(regimens)
    if has_arms(named):
        exposure = window_of_arms(exposure, times, cohort)
    return named, exposure


def has_arms(regimens: Mapping[str, AnyRegimen]) -> bool:
    """Whether any of the regimens is an arm with covariates of its own."""
    return any(isinstance(x, Arm) for x in regimens.values())


def plan_of(regimen: AnyRegimen) -> Regimen:
    """The plan of a regimen, also of one whose amounts are adapted or taken from a design."""
    return regimen if isinstance(regimen, Regimen) else regimen.plan


def doses_of(regimen: AnyRegimen, who: Recipients) -> Doses | None:
    """The doses of the individuals under a regimen, before any is adapted."""
    if isinstance(regimen, DesignDoses | Arm):
        return regimen.doses(who)
    return plan_of(regimen).doses(len(who), who.covariates, start=who.start)


def prediction_times(
    times: Sequence[float] | Tensor | None,
    regimens: Mapping[str, AnyRegimen],
    exposure: Exposure,
    num: int,
) -> Tensor:
    """The times that the user names, or ``num`` until the end of the longest regimen and of the
    window of the exposure, shape ``(time,)``.

    Raises:
        SettingError: The times are not finite or decrease.
    """
    if times is not None:
        try:
            grid = torch.as_tensor(times, dtype=torch.float64).reshape(-1)
        except (TypeError, ValueError, RuntimeError):
            grid = torch.zeros(0)
        if not len(grid) or not bool(grid.isfinite().all() & (grid.diff() >= 0).all()):
            raise SettingError(
                f"`times` is {times!r}.", "increasing finite times.", "correct `times=`."
            )
        return grid
    plans = [plan_of(x) for x in regimens.values()]
    ends = [x.end for x in plans if x.end is not None]
    ends += [exposure.window(x)[1] for x in plans if not exposure.steady_state]
    first = min(min(x.times) for x in plans)
    return torch.linspace(min(0.0, first), max(ends), num, dtype=torch.float64)
