"""Groups of individuals by a covariate, for panels of a figure."""

import torch
from torch import Tensor

from ...cohort import Cohort
from ...errors import CohortError

# Most values of a covariate that have a panel each; a covariate with more is divided at its median.
MAX_LEVELS = 6


def strata_of(cohort: Cohort, covariate: str | None) -> dict[str, Tensor]:
    r"""Members of each panel, boolean of shape ``(individual,)``, by the title of the panel.

    Args:
        cohort: The data.
        covariate: Name of a covariate, or None for all individuals together.

    Raises:
        CohortError: There is no such covariate.
    """
    if covariate is None:
        return {"": torch.ones(len(cohort), dtype=torch.bool)}
    if covariate not in cohort.covariates:
        raise CohortError(
            f"There is no covariate {covariate!r}.",
            f"one of {list(cohort.covariates)}.",
            "check the name in `stratify=`.",
        )
    x = cohort.covariates[covariate]
    levels = x.unique()
    if len(levels) <= MAX_LEVELS:
        names = cohort.categories.get(covariate)
        return {
            f"{covariate} = {names[int(v)] if names else f'{float(v):g}'}": x == v for v in levels
        }
    median = x.median()
    return {
        f"{covariate} up to {float(median):g}": x <= median,
        f"{covariate} above {float(median):g}": x > median,
    }
