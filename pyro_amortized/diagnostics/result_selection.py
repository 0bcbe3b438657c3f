r"""The individual posteriors and the series of a result that residuals and figures show."""

from ..errors import CohortError
from ..population.fit_result import PopulationFit
from ..runtime.arguments import check_is
from ..sampling.individuals import IndividualPosteriors


def check_series(individuals: IndividualPosteriors, series: str | None) -> str:
    r"""The name of a series of one channel that the model observes.

    Args:
        individuals: The individual posteriors.
        series: Name of a series. Default: the first series of the model.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    structure, cohort = individuals.structure, individuals.cohort
    name = series or structure.series[0]
    if name not in structure.series or cohort[name].values.dim() != 2:
        raise CohortError(
            f"The series {name!r} cannot be shown.",
            f"a series of one channel that the model observes, one of {structure.series}.",
            "pass its name as `series=`.",
        )
    return name


def individuals_of(result: PopulationFit | IndividualPosteriors) -> IndividualPosteriors:
    r"""The individual posteriors of a result.

    Args:
        result: A fit, or individual posteriors.

    Raises:
        SettingError: The result is of another class.
    """
    fix = "pass what `fit_population` or `sample_individuals` gives."
    check_is("result", result, (PopulationFit, IndividualPosteriors), fix)
    return result.individuals if isinstance(result, PopulationFit) else result
