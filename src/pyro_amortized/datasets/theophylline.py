r"""Theophylline: concentrations after one oral dose in twelve individuals."""

from importlib.resources import as_file, files

from ..cohort import Cohort
from ..nlme.tables import read_table


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
        Data set ``Theoph`` of R; Boeckmann, Sheiner and Beal (1994), NONMEM Users Guide, part V.
    """
    with as_file(files(__package__) / "theophylline.csv") as path:
        cohort = read_table(path, series="concentration", covariates=["WT"])
    return Cohort(cohort.series, cohort.doses, {"weight": cohort.covariates["WT"]}, cohort.ids)
