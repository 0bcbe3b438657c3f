r"""The difference of the likelihoods of two fits of which one has a level above the individuals.

The individuals of such a fit are no longer independent, so that there is no difference of each
individual. Both likelihoods have control variates and errors of their own.
"""

import math
from dataclasses import dataclass

from ...errors import FitError
from ..results.fit_result import PopulationFit
from .level_result import LevelFit

AnyFit = PopulationFit | LevelFit


@dataclass(frozen=True)
class SeparateDifference:
    r"""The difference of two -2 log likelihoods on draws of their own.

    Args:
        minus2ll: -2 log likelihood of the first minus that of the second.
        minus2ll_mc_error: Its Monte Carlo standard error.
    """

    minus2ll: float
    minus2ll_mc_error: float


def level_difference(first: AnyFit, second: AnyFit) -> SeparateDifference:
    r"""The difference of the -2 log likelihoods of two fits of the same data.

    Raises:
        FitError: One of them is likelihood-free.
    """
    errors = []
    for fit in (first, second):
        if fit.structure.estimator == "likelihood-free":
            raise FitError(
                "A likelihood-free fit is compared with a fit of levels.",
                "fits by the density of the model: -2LL of the other lacks a constant.",
                'fit it with `estimator="corrected"`.',
            )
        errors.append(fit.minus2ll_mc_error)
    return SeparateDifference(first.minus2ll - second.minus2ll, math.hypot(*errors))
