"""Methods that need the likelihood of all individuals at many populations, and its memory."""

from dataclasses import dataclass

from ...errors import FitError
from ..levels.level_result import LevelFit
from ..results.fit_result import PopulationFit


@dataclass(frozen=True)
class SizeSettings:
    r"""Number of individuals up to which such methods are used.

    Args:
        max_individuals: The expansion of 20,000 individuals with 100 draws each takes about a
            gigabyte, their log likelihoods at 2,000 populations 0.3. The posterior given so many is
            nearly normal.
    """

    max_individuals: int = 20_000


SIZE = SizeSettings()


def check_size(fit: PopulationFit | LevelFit, what: str) -> None:
    r"""Raise an error if a method is not meant for so many individuals.

    Args:
        fit: The fit.
        what: The method, for the message.

    Raises:
        FitError: There are too many individuals.
    """
    num = len(fit.cohort)
    if num > SIZE.max_individuals:
        raise FitError(
            f"{what} of {num:,} individuals.",
            f"at most {SIZE.max_individuals:,} individuals: the likelihood of all of them at many "
            "populations would not fit into the memory.",
            "use `fit.standard_errors` and the normal distribution with `fit.vector` and "
            "`fit.covariance`, from which the posterior of so many individuals differs little; "
            "or fit a part of them.",
        )
