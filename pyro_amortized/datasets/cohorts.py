r"""Cohorts of published measurements, and the publications that they come from.

Each function reads one table of this folder and returns it as a :class:`~pyro_amortized.Cohort`.
"""

from dataclasses import replace
from importlib.resources import as_file, files
from typing import Any

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
        Measurements: a study of R. A. Upton, published in Boeckmann, Sheiner and Beal (1994),
        NONMEM Users Guide, part V. The same data are the data set ``Theoph`` of R.
    """
    cohort = _read_measurements("theophylline", series="concentration", covariates=["WT"])
    return replace(cohort, covariates={"weight": cohort.covariates["WT"]})


def phenobarbital() -> Cohort:
    r"""Phenobarbital in 59 neonates: 155 concentrations during repeated intravenous doses.

    Returns:
        Series ``concentration`` (mg/L, times in h), doses (mg, boluses), covariates ``weight`` (kg)
        and ``apgar`` (score, 1 to 10).

    Example:
        >>> cohort = phenobarbital()
        >>> len(cohort), cohort.num_observations
        (59, 155)

    References:
        Measurements: Grasela and Donn (1985), Neonatal population pharmacokinetics of phenobarbital
        derived from routine clinical data, Developmental Pharmacology and Therapeutics 8, 374-383.
        The same data are the data set ``Phenobarb`` of the R package nlme.
    """
    cohort = _read_measurements("phenobarbital", series="concentration", covariates=["WT", "APGR"])
    weight, apgar = cohort.covariates["WT"], cohort.covariates["APGR"]
    return replace(cohort, covariates={"weight": weight, "apgar": apgar})


def warfarin() -> Cohort:
    r"""Warfarin in 32 individuals: 251 concentrations and 232 effects after one oral dose.

    Returns:
        Series ``concentration`` (mg/L) and ``pca`` (prothrombin complex activity, % of normal),
        each with times of its own (h); one dose each (mg, given at 0 h into the depot); covariates
        ``weight`` (kg), ``age`` (years) and ``male`` (0 or 1).

    Example:
        >>> cohort = warfarin()
        >>> len(cohort), cohort["concentration"].num_observations, cohort["pca"].num_observations
        (32, 251, 232)

    References:
        Measurements: O'Reilly, Aggeler and Leong (1963), Studies on the coumarin anticoagulant
        drugs: the pharmacodynamics of warfarin in man, Journal of Clinical Investigation 42,
        1542-1551; O'Reilly and Aggeler (1968), Studies on coumarin anticoagulant drugs: initiation
        of warfarin therapy without a loading dose, Circulation 38, 169-177.
    """
    names = {"cp": "concentration", "pca": "pca"}
    cohort = _read_measurements("warfarin", series=names, covariates=["WT", "AGE", "SEX"])
    columns = cohort.covariates
    covariates = {"weight": columns["WT"], "age": columns["AGE"], "male": columns["SEX"]}
    return replace(cohort, covariates=covariates)


def indometh() -> Cohort:
    r"""Indometacin in 6 individuals: 11 concentrations each after 25 mg intravenously.

    Returns:
        Series ``concentration`` (mg/L, times in h), one dose each (mg, bolus at 0 h).

    Example:
        >>> len(indometh()), indometh().num_observations
        (6, 66)

    References:
        Measurements: Kwan, Breault, Umbenhauer, McMahon and Duggan (1976), Kinetics of indomethacin
        absorption, elimination, and enterohepatic circulation in man, Journal of Pharmacokinetics
        and Biopharmaceutics 4, 255-280. The same data are the data set ``Indometh`` of R.
    """
    return _read_measurements("indometh", series="concentration")


def orange() -> Cohort:
    r"""Growth of 5 orange trees: trunk circumference at 7 ages.

    Returns:
        Series ``circumference`` (mm, times in days).

    Example:
        >>> len(orange()), orange().num_observations
        (5, 35)

    References:
        Measurements: Draper and Smith (1998), Applied Regression Analysis, third edition, exercise
        24.N. The same data are the data set ``Orange`` of R.
    """
    return _read_measurements("orange", series="circumference")


def _read_measurements(name: str, **options: Any) -> Cohort:
    """The table ``name.csv`` of this folder as a cohort; options are those of ``read_table``."""
    with as_file(files(__package__) / f"{name}.csv") as path:
        return read_table(path, **options)
