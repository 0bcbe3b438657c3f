"""Warnings that name individuals whose data are unusual or whose draws cannot be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..runtime.user_warnings import warn_user
from .importance_weights import PARETO, ImportanceEstimate
from .weight_quality import RELIABILITY, unreliable


@dataclass(frozen=True)
class WarningSettings:
    r"""Lengths of warnings.

    Args:
        max_unusual: Individuals with unusual missing values that a warning names.
        max_unreliable: Individuals with unreliable weights that a warning names.
    """

    max_unusual: int = 5
    max_unreliable: int = 10


WARNINGS = WarningSettings()


def warn_unusual(unusual: Mapping[str, str]) -> None:
    """Name individuals whose missing values are unlike those of the training.

    ``unusual`` gives a reason by label.
    """
    if unusual:
        num = WARNINGS.max_unusual
        named = "; ".join(f"{label}: {why}" for label, why in list(unusual.items())[:num])
        warn_user(
            f"The missing values of {len(unusual)} individuals follow patterns far outside those "
            f"the guide was trained on ({named}{'; ...' if len(unusual) > num else ''}). Their "
            "draws are corrected nevertheless; a guide that is trained on a design with such "
            "patterns needs fewer draws."
        )


def warn_unreliable(
    labels: Sequence[str],
    estimate: ImportanceEstimate,
    num_draws: int,
    methods: Sequence[str],
    refined: bool,
) -> None:
    r"""Name individuals whose weights are unreliable.

    Args:
        labels: The individuals.
        estimate: Effective sample size and Pareto k of their weights.
        num_draws: Draws per individual.
        methods: What the draws of each individual come from.
        refined: Whether individuals with poor weights were refined.
    """
    num = WARNINGS.max_unreliable
    is_unreliable = unreliable(estimate, num_draws)
    if bool(is_unreliable.any()):
        by_ess = estimate.ess.argsort()
        rows = by_ess[is_unreliable[by_ess]].tolist()
        named = ", ".join(
            f"{labels[i]} (k = {float(estimate.pareto_k[i]):.2f}, "
            f"ESS {float(estimate.ess[i]):.0f}, {methods[i]})"
            for i in rows[:num]
        )
        warn_user(
            f"The weights of {len(rows)} of {len(labels)} individuals are unreliable "
            f"(Pareto k above {PARETO.limit}, or fewer than {RELIABILITY.min_ess:.0f} effective "
            f"draws){' after refinement' if refined else ', and were not refined'}: "
            f"{named}{', ...' if len(rows) > num else ''}."
        )
