r"""Arms of a study that differ by covariates: a dose that the model reads as a covariate, a diet.

An arm stands in the place of a regimen. Its individuals have its covariates and no recorded doses;
all other covariates are those of the individuals of the other arms, so that arms are compared on
the same individuals. Individual parameters are drawn for each arm with the same random numbers,
because their distribution may depend on the covariates of the arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..cohort import Cohort, Doses
from ..nlme.regimens import Regimen
from ..nlme.studies import given_covariates
from .exposure import Exposure
from .recipients import Recipients, last_records, no_doses


@dataclass(frozen=True, eq=False)
class Arm:
    r"""Covariates of an arm.

    Args:
        covariates: One value, or one per individual, by name; names of categories are allowed.
    """

    covariates: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name among the regimens."""
        return ", ".join(f"{name} = {value}" for name, value in self.covariates.items())

    @property
    def plan(self) -> Regimen:
        """A regimen that begins at 0 and whose only dose is none."""
        return Regimen((0.0,), (0.0,), (0.0,), (1,), (False,))

    def recipients(self, who: Recipients) -> Recipients:
        r"""The individuals with the covariates of this arm.

        Raises:
            SettingError: A covariate has the wrong number of values.
        """
        own = given_covariates(self.covariates, len(who), who.categories)
        return replace(who, covariates=dict(who.covariates) | own)

    def doses(self, who: Recipients) -> Doses:
        """A record without doses, which the model may read."""
        return no_doses(len(who))


def window_of_arms(
    exposure: Exposure, times: Sequence[float] | Tensor | None, cohort: Cohort | None
) -> Exposure:
    """The exposure with a window that arms without dosing intervals have: from 0 to the last of the
    times, or else to the last record of the data of the fit; unchanged where neither is known.
    """
    start = 0.0 if exposure.start is None else exposure.start
    end = exposure.end
    if end is None and times is None and cohort is not None:
        end = float(last_records(cohort).max())
    return replace(exposure, start=start, end=end)
