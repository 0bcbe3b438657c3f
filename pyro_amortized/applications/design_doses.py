r"""A design in the place of a regimen: individuals with doses and covariates of their own."""

from dataclasses import dataclass, replace

import torch

from ..cohort import Cohort, Doses
from ..errors import SettingError
from ..nlme.regimens import Regimen
from .exposure import Exposure
from .recipients import Recipients, last_records


@dataclass(frozen=True, eq=False)
class DesignDoses:
    r"""The doses of a design.

    Args:
        cohort: The design.
    """

    cohort: Cohort

    @property
    def label(self) -> str:
        """Its name among the regimens."""
        return "design"

    @property
    def plan(self) -> Regimen:
        """A regimen with all times at which any individual has a dose; its amounts mean nothing."""
        doses = self.cohort.doses
        times = [0.0] if doses is None else doses.times[doses.given].unique().tolist() or [0.0]
        durations = [0.0] * len(times)
        if doses is not None:
            durations = [float(doses.durations[doses.times == t].max()) for t in times]
        num = len(times)
        return Regimen(tuple(times), (0.0,) * num, tuple(durations), (1,) * num, (False,) * num)

    def exposure(self, exposure: Exposure) -> Exposure:
        r"""The exposure with a window: by default from 0 to the last time of the design.

        Raises:
            SettingError: A steady state is wanted, which needs a regimen.
        """
        if exposure.steady_state:
            raise SettingError(
                "The exposure of a design at steady state.",
                "a regimen with an interval.",
                "pass `nlme.regimen(amount, interval)` in place of the cohort.",
            )
        start = 0.0 if exposure.start is None else exposure.start
        end = exposure.end
        if end is None:
            end = max(float(s.times.max()) for s in self.cohort.series.values())
            end = max(end, float(last_records(self.cohort).max()))
        return replace(exposure, start=start, end=end)

    def doses(self, who: Recipients) -> Doses | None:
        r"""The doses on the clocks of the individuals.

        Raises:
            SettingError: The design has another number of individuals.
        """
        if len(self.cohort) != len(who):
            raise SettingError(
                f"The design has {len(self.cohort)} individuals, `conditional_on` {len(who)}.",
                "the same individuals in both, in the same order.",
                "pass one row of the design per individual.",
            )
        doses = self.cohort.to(dtype=torch.float64).doses
        if doses is None:
            return None
        return replace(doses, times=doses.times + who.start.unsqueeze(1))
