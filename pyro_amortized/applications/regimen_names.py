r"""Regimens and their names."""

from collections.abc import Mapping, Sequence

from ..errors import SettingError
from ..nlme.adaptive_regimens import AdaptiveRegimen
from ..nlme.regimens import Regimen
from ..runtime.arguments import check_is
from .design_doses import DesignDoses

AnyRegimen = Regimen | AdaptiveRegimen | DesignDoses
Regimens = AnyRegimen | Mapping[str, AnyRegimen] | Sequence[AnyRegimen]


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
    """Regimens by name; a regimen without a name is named by what it is."""
    if isinstance(regimens, AnyRegimen):
        regimens = [regimens]
    if not isinstance(regimens, Mapping):
        fix = "pass what `nlme.regimen` gives, a list, or a dictionary by name."
        check_is("regimens", regimens, (list, tuple), fix)
        labels = [r.label if isinstance(r, AnyRegimen) else str(r) for r in regimens]
        check_names("regimens", labels)
        regimens = dict(zip(labels, regimens, strict=True))
    for name, regimen in regimens.items():
        kinds = (Regimen, AdaptiveRegimen)
        check_is(f"regimens[{name!r}]", regimen, kinds, "pass what `nlme.regimen` gives.")
    if not regimens:
        raise SettingError("There are no regimens.", "one or more.", "pass `nlme.regimen(...)`.")
    return {str(name): regimen for name, regimen in regimens.items()}
