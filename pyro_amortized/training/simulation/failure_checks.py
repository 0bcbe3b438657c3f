r"""What the user is told about a simulation: that it is slow, or that simulations failed."""

from dataclasses import dataclass

from ...errors import TrainingError
from ...model import ModelStructure
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


def announce_layout(structure: ModelStructure, loop_size: int) -> None:
    r"""Warn if the model has to be run in a loop over small groups of individuals.

    Args:
        structure: The model.
        loop_size: Number of individuals per run.
    """
    if structure.layout is not None:
        return
    names, example = ", ".join(structure.shared), structure.shared[0]
    warn_user(
        f"The model cannot be run with one value of {names} per individual, so simulation "
        f"runs it once per {loop_size} individuals, which is slow. Write shared parameters so that "
        f"they broadcast over individuals and times: `{example}[..., None]` in place of "
        f"`{example}`, `.unbind(-1)` in place of `[0]`."
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
