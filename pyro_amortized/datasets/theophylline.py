r"""Theophylline: concentrations after one oral dose in twelve individuals."""

from dataclasses import replace

from ..cohort import Cohort
from .loading import shipped


def theophylline() -> Cohort:
    r"""Serum concentrations of theophylline in 12 individuals, 11 each, over 25 hours after one
    oral dose.

    Returns:
        Series ``concentration`` (mg/L, times in h), one dose each (mg, given at 0 h into the
        depot), covariate ``weight`` (kg).

    Example:
        >>> cohort = theophylline()
        >>> len(cohort), cohort.num_observations
        (12, 132)

    References:
        Measurements: a study of R. A. Upton, published in Boeckmann, Sheiner and Beal (1994),
        NONMEM Users Guide, part V. The same data are the data set ``Theoph`` of R.
    """
    cohort = shipped("theophylline", series="concentration", covariates=["WT"])
    return replace(cohort, covariates={"weight": cohort.covariates["WT"]})
