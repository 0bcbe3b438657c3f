"""Checks of the random effects of a fit, and what to write into the model."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.short_lists import first_few
from ..check_results import P_VALUES, Check
from .effect_dependence import DependenceKind, EffectTest
from .random_effect_analysis import RandomEffectTests


@dataclass(frozen=True)
class EffectCheckSettings:
    """Most findings that a check names."""

    max_named: int = 5


DEFAULTS = EffectCheckSettings()

COVARIATES = (
    "Add the covariate to the mean of the parameter, with a population site for its effect: "
    "`nlme.linear_effect`, `nlme.power_effect` or `nlme.categorical_effect`. For the order in the "
    "file or the dose, look for a change during the study or a nonlinear process; where several "
    "parameters move together, for an assay, a unit or a dose that differs."
)
NEIGHBOURS = (
    "Look for what individuals next to each other in the file share and the table does not say: a "
    "batch of the assay, a site, a family, a season. Add it as a covariate."
)
CORRELATIONS = (
    "Let the random effects be correlated: `nlme.random_effects` with a population site "
    "`dist.LKJCholesky(...)`, or a `dist.MultivariateNormal`."
)
DISTRIBUTION = (
    "Look at the data of these individuals (units, doses, mixed-up samples); without an error in "
    "the data, use another distribution: heavier tails, a transformation, or a mixture."
)
INTERACTIONS = (
    "Give the parameter an effect of the product of both variables, or of each group of "
    "individuals (`nlme.categorical_effect`)."
)
VARIANCES = (
    "Give the groups standard deviations of their own, or look for a covariate or for wrong data "
    "in the group with the larger ones."
)
RECORDING = (
    "Values may be missing because of the individual's parameters (dropout, a limit of "
    "quantification that is not modelled). Model what is recorded with a series "
    "`<name>_recorded`, or give the limit."
)


# One family: further questions about the variables of the cohort.
FURTHER: tuple[DependenceKind, ...] = ("interaction", "spread")


def random_effect_checks(tests: RandomEffectTests) -> list[Check]:
    """The verdicts on the kinds of tests; an empty list where nothing could be tested.

    The p-values of interactions and variances have Bonferroni's factor for the number of all of
    them together, those of the other kinds for their own. The covariates that the model uses and
    all other variables get half of the level each: a wrong effect of the former is the more likely
    mistake, and these tests are few.
    """
    kinds: list[tuple[str, tuple[DependenceKind, ...], str, bool]] = [
        ("random effects and covariates", ("variable", "joint"), COVARIATES, True),
        ("neighbours in the file", ("neighbours",), NEIGHBOURS, True),
        ("interactions of covariates", ("interaction",), INTERACTIONS, True),
        ("variances of random effects", ("spread",), VARIANCES, True),
        ("correlations of random effects", ("correlation",), CORRELATIONS, True),
        ("distribution of random effects", ("mean", "normality", "outlier"), DISTRIBUTION, True),
        ("random effects and recording", ("recording",), RECORDING, False),
    ]
    checks = []
    for name, own, advice, can_fail in kinds:
        if tests.of(*own):
            family = tests.of(*(FURTHER if own[0] in FURTHER else own))
            checks.append(_check(name, tests.of(*own), family, advice, can_fail))
    return checks


def _number(tests: Sequence[EffectTest]) -> int:
    """Number of tests; several outliers of one effect are one test."""
    return len({(t.kind, t.effect, "" if t.kind == "outlier" else t.against) for t in tests})


def _factors(family: Sequence[EffectTest]) -> tuple[int, int]:
    """Bonferroni's factors of a family, for variables that the model does not use, and for others:
    they share the level, if there are both.
    """
    is_covariate = family[0].kind in ("variable", "joint")
    used = _number([t for t in family if t.is_used]) if is_covariate else 0
    rest = _number(family) - used
    share = 2 if used and rest else 1
    return (share * rest, share * used) if used else (rest, rest)


def _check(
    name: str,
    tests: Sequence[EffectTest],
    family: Sequence[EffectTest],
    advice: str,
    can_fail: bool,
) -> Check:
    """The verdict on tests of a family: the smallest p-value times its factor decides, and every
    finding below the limits is named.
    """
    factors, num = _factors(family), _number(family)

    def corrected(test: EffectTest) -> float:
        return min(1.0, factors[test.is_used] * test.p_value)

    ordered = sorted(tests, key=lambda t: (corrected(t), t.p_value, t.words))
    p_value = corrected(ordered[0])
    status = P_VALUES.status(p_value)
    if status == "failed" and not can_fail:
        status = "look"
    words = f"No deviation was found in {num} {'test' if num == 1 else 'tests'}."
    if status != "passed":
        found = _different([t for t in ordered if corrected(t) < P_VALUES.look])
        words = f"Found: {first_few([t.words for t in found], DEFAULTS.max_named, '; ')}. {advice}"
    return Check(name, status, p_value, words, "model", num)


def _different(found: Sequence[EffectTest]) -> list[EffectTest]:
    """The findings without those that say the same: the dependence of several effects together and
    those of each of them on one variable; the most significant of both stays.
    """
    first: dict[str, bool] = {}
    kept = []
    for test in found:
        name, is_joint = test.against.removesuffix(", curved"), test.kind == "joint"
        if test.kind not in ("variable", "joint") or first.setdefault(name, is_joint) == is_joint:
            kept.append(test)
    return kept
