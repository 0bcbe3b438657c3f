r"""Whether a guide pays for fits like the one at hand, in words.

Without a guide every individual is drawn from mixtures that are fitted to it. A guide takes minutes
to train and replaces the first draws of every individual; where its own draws are good enough,
nothing is fitted (documentation page *When does training pay?*).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...model import Estimator


@dataclass(frozen=True)
class GuideAdviceSettings:
    r"""Limits of the advice; ``benchmarks/frontier.py`` has the measured times.

    Args:
        long_fit: Duration of a fit without a guide, in seconds, from which a training of a minute,
            the shortest that was measured, is not longer than the fit itself.
        min_served: Share of the individuals that the guide has to serve. With 58 % of 12
            individuals served the fit took a seventh less time, with 21 % of 100 as long.
    """

    long_fit: float = 60.0
    min_served: float = 0.5


ADVICE = GuideAdviceSettings()


def guide_advice(
    estimator: Estimator, has_guide: bool, methods: Sequence[str], seconds: float
) -> str:
    r"""Whether training a guide pays, or has paid, in whole sentences.

    Args:
        estimator: The estimator of the fit.
        has_guide: Whether the fit used a guide.
        methods: What the draws of each individual come from.
        seconds: Duration of the fit.
    """
    if estimator == "likelihood-free":
        return (
            "This fit uses the density that the guide has learned, so it needs a guide: more "
            "simulations and a longer training reduce its error."
        )
    if has_guide:
        return _with_guide(methods, seconds)
    duration = _duration(seconds)
    if seconds < ADVICE.long_fit:
        return (
            f"This fit took {duration} without a guide, less than a training takes: for this "
            "cohort a guide does not pay. Train one for the posteriors of many new individuals, "
            "or for simulators that have no density."
        )
    return (
        f"This fit took {duration} without a guide. A guide that is trained for some minutes "
        "shortens further fits of such data if its own draws serve most of the individuals; "
        "`fit.advice` of a fit with the guide says how many."
    )


def _with_guide(methods: Sequence[str], seconds: float) -> str:
    num_served = sum(method == "guide" for method in methods)
    served = f"The guide's own draws served {num_served} of {len(methods)} individuals"
    if num_served >= ADVICE.min_served * len(methods):
        duration = _duration(seconds)
        return (
            f"{served} of this fit of {duration}, and nothing was fitted to them. The guide pays "
            "with every further cohort where a curve of the model costs more than a draw of the "
            "network, some hundredths of a millisecond."
        )
    return (
        f"{served}; the others were drawn from mixtures that were fitted to them, as without a "
        "guide. Train it longer, or around the fit (`retrain=True`), or fit without it."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < ADVICE.long_fit else f"{seconds / 60:.1f} min"
