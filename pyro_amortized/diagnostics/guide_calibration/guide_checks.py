r"""Checks of a trained guide on simulated individuals.

- Ranks of every parameter against simultaneous bands, coverage of the joint posterior (TARP), and
  ranks that depend on the data (local test), raw and corrected.
- Efficiency: the effective share of the guide's own draws, and the share of individuals that remain
  unreliable after the refinement.
- Influence: whether every parameter moves the simulated data. Calibration cannot see a parameter
  that the model ignores, because its prior is then its right posterior.
- Contraction: whether the data say anything about each parameter.

They take a :class:`~pyro_amortized.diagnostics.Calibration` and the guide, and give
:class:`~pyro_amortized.diagnostics.Check` values.
"""

from dataclasses import dataclass, replace

from torch import Generator

from ...cohort import Design
from ...guide import AmortizedGuide
from ...runtime.random_numbers import fork_seed
from ...sampling.importance_weights import PARETO
from ..check_results import Check, Status, check_p_values
from .calibration_result import Calibration
from .parameter_influence import influence


@dataclass(frozen=True)
class GuideCheckSettings:
    r"""Limits of the checks of a guide.

    Args:
        fair_efficiency: Median effective share of the guide's draws below which a look is advised:
            the correction then needs more than three times as many draws as a perfect guide.
        poor_efficiency: Median share below which the check fails: ten times as many draws.
        unreliable_look: Share of simulated individuals with a large Pareto k after the refinement
            above which a look is advised: more than a rare exception.
        unreliable_failed: Share above which the check fails: one individual in ten has results that
            are not reliable.
        min_influence: Smallest change of the data by one standard deviation of a parameter, in
            standard deviations of the simulated values. Random numbers are common to both
            simulations, so that an ignored parameter gives zero but for rounding.
        min_contraction: Share of the variance that the data must take away; below it, the posterior
            standard deviation differs from that of the training distribution by at most 1 %.
    """

    fair_efficiency: float = 0.3
    poor_efficiency: float = 0.1
    unreliable_look: float = 0.02
    unreliable_failed: float = 0.1
    min_influence: float = 1e-3
    min_contraction: float = 0.02


DEFAULTS = GuideCheckSettings()

TRAIN_LONGER = (
    "The correction by the density of the model removes this error; with a longer training "
    "(`guide.history.advice`) it needs fewer draws."
)
TRAIN_UNCORRECTED = (
    "The model has no density that could correct this error: train the guide longer "
    "(`guide.history.advice`)."
)
BIASED = "Corrected results are biased: take more draws; if that does not help, report a defect."
NOT_UNIFORM = "The ranks of {} are not uniform."
NOT_COVERED = "The coverage of the joint posterior is not uniform."
NOT_LOCAL = "The ranks of {} depend on the data."


def rank_checks(calibration: Calibration, *, corrected: bool = True) -> list[Check]:
    """Ranks, joint coverage and local ranks, of the guide and of the corrected draws.

    Where the density of the model corrects the guide, the checks of the guide alone never fail.

    Args:
        calibration: Calibration of the guide.
        corrected: Whether the results that are looked at are corrected: those of the
            likelihood-free estimator are not, although the model may have a density.
    """
    if not corrected or bool(calibration.ess.isnan().any()):
        return _rank_checks(calibration, "raw guide", TRAIN_UNCORRECTED, raw=True)
    checks = [
        replace(check, status="passed" if check.status == "passed" else "look")
        for check in _rank_checks(calibration, "raw guide", TRAIN_LONGER, raw=True)
    ]
    return checks + _rank_checks(calibration, "corrected", BIASED, raw=False)


def _rank_checks(calibration: Calibration, label: str, advice: str, *, raw: bool) -> list[Check]:
    uniform, local = calibration.uniform_p_values(raw=raw), calibration.local_p_values(raw=raw)
    joint = {"all parameters": calibration.tarp_p_value(raw=raw)}
    return [
        check_p_values(f"ranks, {label}", uniform, NOT_UNIFORM, advice),
        check_p_values(f"joint coverage, {label}", joint, NOT_COVERED, advice),
        check_p_values(f"local ranks, {label}", local, NOT_LOCAL, advice),
    ]


def efficiency_checks(calibration: Calibration) -> list[Check]:
    """Effective share of the guide's own draws, and individuals that remain unreliable."""
    name = "efficiency of the guide"
    if bool(calibration.ess.isnan().any()):
        words = (
            "The model has no density, so that nothing corrects the guide: its ranks decide "
            "whether the results can be trusted."
        )
        return [Check(name, "passed", float("nan"), words)]
    share = float(calibration.raw_efficiency.median())
    tenth = float(calibration.raw_efficiency.quantile(0.1))
    status: Status = "passed"
    if share < DEFAULTS.fair_efficiency:
        status = "failed" if share < DEFAULTS.poor_efficiency else "look"
    words = (
        f"Half of the individuals have an effective share of the guide's draws above {share:.0%}, "
        f"a tenth of them below {tenth:.0%}."
    )
    advice = "" if status == "passed" else " The guide is undertrained: train it longer."
    unreliable = float((calibration.pareto_k > PARETO.limit).double().mean())
    return [Check(name, status, share, words + advice), _refinement_check(unreliable)]


def _refinement_check(unreliable: float) -> Check:
    status: Status = "passed"
    if unreliable > DEFAULTS.unreliable_look:
        status = "failed" if unreliable > DEFAULTS.unreliable_failed else "look"
    words = (
        f"{unreliable:.1%} of the simulated individuals have a Pareto k above {PARETO.limit} "
        "after the refinement."
    )
    return Check("refinement", status, unreliable, words)


def influence_checks(
    guide: AmortizedGuide, design: Design, calibration: Calibration, generator: Generator
) -> list[Check]:
    """Whether every parameter moves the simulated data, and whether the data inform about it.

    Args:
        guide: The guide.
        design: Design of the simulated individuals.
        calibration: Calibration of the guide.
        generator: Source of the seed of the simulations.
    """
    changes = influence(guide, design, seed=fork_seed(generator))
    ignored = [n for n, x in changes.items() if x < DEFAULTS.min_influence]
    words = "Every parameter moves the simulated data."
    if ignored:
        words = (
            f"The simulated data do not change with {', '.join(ignored)}. Check that the model "
            "uses it."
        )
    smallest = min(changes.values(), default=0.0)
    status: Status = "failed" if ignored else "passed"
    moved = Check("influence of parameters", status, smallest, words)
    return [moved, _contraction_check(calibration, ignored)]


def _contraction_check(calibration: Calibration, ignored: list[str]) -> Check:
    contraction = calibration.contraction()
    uninformed = [
        n for n, x in contraction.items() if x < DEFAULTS.min_contraction and n not in ignored
    ]
    words = "The data of one individual say something about every parameter."
    if uninformed:
        words = f"The data of one individual say nothing about {', '.join(uninformed)}."
    elif ignored:
        words = "The data of one individual say something about every parameter that moves them."
    status: Status = "look" if uninformed else "passed"
    return Check("contraction", status, min(contraction.values()), words)
