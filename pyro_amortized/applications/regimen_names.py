r"""Regimens and their names."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SettingError
from ..nlme.adaptive_regimens import AdaptiveRegimen
from ..nlme.regimens import Regimen
from ..runtime.arguments import check_is
from .covariate_arms import Arm
from .design_doses import DesignDoses

AnyRegimen = Regimen | AdaptiveRegimen | DesignDoses | Arm
Regimens = (
    Regimen
    | AdaptiveRegimen
    | Sequence[Regimen | AdaptiveRegimen]
    | Mapping[str, Regimen | AdaptiveRegimen | Mapping[str, Any]]
)


FIX = (
    "pass what `nlme.regimen` gives, a list, or a dictionary by name; without doses, the "
    'covariates of each arm by its name, {"placebo": {"DOSE": 0}, "50 mg": {"DOSE": 50}}.'
)


def check_names(argument: str, names: Sequence[str]) -> None:
    """Raise if two regimens of a list have the same name, as one would replace the other."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingError(
            f"`{argument}` has more than one {twice[0]!r}.",
            "regimens that differ.",
            "leave one of them out, or pass a dictionary with a name for each.",
        )


def named_regimens(regimens: Regimens) -> dict[str, AnyRegimen]:
    """Regimens by name; a regimen without a name is named by what it is, and a mapping of
    covariates is an arm.
    """
    if isinstance(regimens, Regimen | AdaptiveRegimen):
        regimens = [regimens]
    if not isinstance(regimens, Mapping):
        check_is("regimens", regimens, (list, tuple), FIX)
        labels = [r.label if isinstance(r, AnyRegimen) else str(r) for r in regimens]
        check_names("regimens", labels)
        regimens = dict(zip(labels, regimens, strict=True))
    named: dict[str, AnyRegimen] = {}
    for name, regimen in regimens.items():
        made = Arm(dict(regimen)) if isinstance(regimen, Mapping) else regimen
        check_is(f"regimens[{name!r}]", made, (Regimen, AdaptiveRegimen, Arm), FIX)
        named[str(name)] = made
    if not named:
        raise SettingError("There are no regimens.", "one or more.", "pass `nlme.regimen(...)`.")
    return named
