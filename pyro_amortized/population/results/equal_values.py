r"""Series whose recorded values are all the same, before a fit.

Counts that are all zero have their largest likelihood at a rate of zero, whose logarithm is minus
infinity; equal values of a measurement have theirs at a residual error of zero. The likelihood then
has no maximum, and the rounds of a fit end somewhere on the way.
"""

from dataclasses import dataclass

from ...cohort import Cohort
from ...model import ModelStructure
from ...runtime.user_warnings import warn_user


@dataclass(frozen=True)
class EqualitySettings:
    r"""When equal values are named.

    Args:
        min_values: Fewest values that are looked at. Fewer may be equal by chance, and say little
            about any parameter.
    """

    min_values: int = 5


EQUALITY = EqualitySettings()


def warn_equal_values(structure: ModelStructure, cohort: Cohort) -> None:
    """Warn of observed series whose recorded values are all the same."""
    for name in dict.fromkeys(site.series for site in structure.observed.values()):
        series = cohort[name]
        values = series.values[series.observed].double()
        if len(values) < EQUALITY.min_values or not bool((values == values[0]).all()):
            continue
        warn_user(
            f"All {len(values)} recorded values of {name!r} are {float(values[0]):g}. If "
            "parameters of the population determine their mean, rate or probability, or their "
            "residual error, the likelihood has no maximum: it rises as one of them goes to its "
            "limit (a rate or an error of zero), and the estimates of a fit lie somewhere on the "
            "way. Check the column; leave the series out, fix the parameter (`fixed=`), or use the "
            "prior (`maximum_a_posteriori=True`, `AmortizedMCMC`)."
        )
