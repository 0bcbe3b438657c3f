r"""What the user is told about a simulation: that it is slow, or that simulations failed."""

from dataclasses import dataclass

from ...cohort import Cohort
from ...errors import TrainingError
from ...model import ModelStructure, sites_without_layout
from ...runtime.user_warnings import warn_user


@dataclass(frozen=True)
class FailureLimits:
    r"""Shares of simulations that are not finite.

    Args:
        warning: Above this share the user is warned: individuals with such parameters are then
            outside the training distribution.
        error: Above this share training is refused, since most of the training distribution could
            not be learned.
    """

    warning: float = 0.01
    error: float = 0.5


LIMITS = FailureLimits()


def announce_layout(structure: ModelStructure, example: Cohort, loop_size: int) -> None:
    r"""Warn if the model has to be run in a loop over small groups of individuals.

    Args:
        structure: The model.
        example: Individuals with which the model can be run.
        loop_size: Number of individuals per run.
    """
    if structure.layout is not None:
        return
    names = sites_without_layout(structure, example, seed=0)
    shapes = [", ".join(map(str, ["individual", *structure.population[n].shape])) for n in names]
    of_names = ", ".join(f"`{n}` of shape ({x})" for n, x in zip(names, shapes, strict=True))
    warn_user(
        f"The model cannot be run with one value of {', '.join(names)} per individual, so "
        f"simulation runs it once per {loop_size} individuals, which is slow. To avoid this, write "
        f"expressions that also take {of_names}: `.unbind(-1)` and `[..., 0]` in place of `[0]`, "
        "`[..., None]` before a dimension of times."
    )


def check_failures(num_failed: int, num_simulations: int, announce: bool = True) -> None:
    r"""Warn of simulations that were not finite, if they are more than a few.

    Args:
        num_failed: Simulations that were not finite.
        num_simulations: All simulations.
        announce: Whether to warn; an error is raised in any case.

    Raises:
        TrainingError: More than half of them were not finite.
    """
    share = num_failed / num_simulations
    if share > LIMITS.error:
        raise TrainingError(
            f"{num_failed} of {num_simulations} simulations are not finite.",
            "a model that can be simulated under most of its training distribution.",
            "narrow the priors of the population, or pass `training_distribution=`.",
        )
    if announce and share > LIMITS.warning:
        warn_user(
            f"{num_failed} of {num_simulations} simulations ({share:.1%}) were not finite and "
            "are not trained on. "
            "Individuals with such parameters are outside the training distribution."
        )
