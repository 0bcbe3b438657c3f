r"""The data beside what the program predicts under its prior, before anything is fitted.

The program is simulated at populations of its prior, for the times, doses and covariates of the
data. The location of an individual is the median of its recorded values, or its logarithm where the
medians are positive. With the medians :math:`m_i` of the simulated locations of an individual, its
deviation is :math:`d_i = l_i - m_i`, so that different doses and times do not matter. Two things
are compared by robust standard deviations:

- the median deviation of all individuals with that of the simulated cohorts: values, doses or times
  in another unit than the program expects;
- the deviation of each individual with those of the others: a wrong unit or dose of one individual.

The populations do not depend on a seed of the user, so the same data give the same answer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..cohort import Cohort
from ..cohort.unit_factors import unit_words
from ..model import ModelStructure
from ..numerics.robust_scale import MAD_TO_SD
from ..runtime.random_numbers import make_generator
from ..runtime.user_warnings import warn_user


@dataclass(frozen=True)
class PredictionSettings:
    r"""Effort and limits of the comparison.

    Args:
        num_populations: Populations of the prior.
        max_values: Largest number of simulated values of one series; with more individuals there
            are fewer populations, and below ``min_populations`` nothing is compared.
        min_populations: Fewest populations that give a robust standard deviation.
        max_cohort_distance: Robust standard deviations of the prior predictions beyond which all
            values together are named.
        max_individual_distance: Robust standard deviations of the individuals beyond which one of
            them is named.
        max_variable_distance: The same for an individual that varies more than the others (few or
            late samples), in standard deviations of its own, which are larger.
        min_individuals: Fewest individuals that are compared with each other.
        min_log_ratio: Deviation of the logarithm below which no individual is named: a factor of
            four is less than a mistake of units.
        min_positive: Share of the simulated medians that are positive from which logarithms of
            positive data are compared. A proportional normal error makes few of them negative.
        max_named: Most individuals that a warning names.
        seed: Seed of the populations.
    """

    num_populations: int = 20
    max_values: int = 300_000
    min_populations: int = 8
    max_cohort_distance: float = 4.0
    max_individual_distance: float = 6.0
    max_variable_distance: float = 4.0
    min_individuals: int = 6
    min_log_ratio: float = math.log(4.0)
    min_positive: float = 0.9
    max_named: int = 5
    seed: int = 1


PREDICTION = PredictionSettings()


@dataclass(frozen=True)
class PriorComparison:
    r"""What is unusual about data before a fit.

    Args:
        cohort: What is said of all individuals together, one sentence for each series.
        individuals: What is said of single individuals, by label.
    """

    cohort: tuple[str, ...] = ()
    individuals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Everything in one text; empty where nothing is unusual."""
        named = list(self.individuals.items())
        parts = list(self.cohort)
        parts += [f"Individual {i}: {' '.join(x)}" for i, x in named[: PREDICTION.max_named]]
        if len(named) > PREDICTION.max_named:
            parts.append(f"{len(named) - PREDICTION.max_named} more individuals are unusual.")
        return " ".join(parts)


def compare_with_prior(structure: ModelStructure, cohort: Cohort) -> PriorComparison:
    r"""Compare data with simulations of the program at populations of its prior.

    Args:
        structure: Structure of the model.
        cohort: The data.

    Returns:
        What is unusual; nothing for cohorts that are too large to be simulated in a moment, and for
        distributions that cannot be simulated.
    """
    names = [
        site.series
        for site in structure.observed.values()
        if site.kind == "continuous" and bool(cohort[site.series].observed.any())
    ]
    most = PREDICTION.max_values // max(1, cohort.num_values)
    num = min(PREDICTION.num_populations, most)
    if num < PREDICTION.min_populations or not names:
        return PriorComparison()
    try:
        simulated = _simulated(structure, cohort, num)
    except NotImplementedError:  # a distribution with a density alone: a fit needs no draws of it
        return PriorComparison()
    whole: list[str] = []
    single: dict[str, tuple[str, ...]] = {}
    for name in names:
        is_log = _is_positive(cohort, name, simulated)
        replicates = [_locations(x, name, is_log) for x in simulated]
        usable = [x for x in replicates if bool(x.isfinite().any())]
        if len(usable) < PREDICTION.min_populations:
            continue
        predicted = torch.stack(usable)
        deviation, of_prior = _deviations(_locations(cohort, name, is_log), predicted)
        whole += _cohort_words(name, deviation, of_prior, is_log)
        if not is_log or int(deviation.isfinite().sum()) < PREDICTION.min_individuals:
            continue
        far = _far_from_others(deviation, _variable_spreads(cohort, predicted))
        for row, words in _individual_words(cohort, name, deviation, far).items():
            label = cohort.ids[row]
            single[label] = (*single.get(label, ()), words)
    return PriorComparison(tuple(whole), single)


def warn_unusual_data(structure: ModelStructure, cohort: Cohort) -> None:
    """Warn of data that are unusual under the prior, before they are fitted."""
    words = compare_with_prior(structure, cohort).words
    if words:
        warn_user(f"The data are unusual under the prior of the model. {words}")


def _simulated(structure: ModelStructure, cohort: Cohort, num: int) -> list[Cohort]:
    """The cohort with values simulated at populations of the prior; failed ones are left out."""
    generator = make_generator(PREDICTION.seed)
    cohort = cohort.to(dtype=torch.float64)
    result = []
    for population in structure.draw_populations(cohort, num, generator):
        simulated, failed = structure.simulate_cohort(cohort, population, generator)
        if not bool(failed.any()):
            result.append(simulated)
    return result


def _medians(cohort: Cohort, name: str) -> Tensor:
    """Median recorded value of each individual, shape ``(individual,)``; NaN where none is."""
    series = cohort[name]
    values = series.values.double()
    return torch.where(series.observed, values, torch.nan).flatten(1).nanmedian(1).values


def _is_positive(cohort: Cohort, name: str, simulated: list[Cohort]) -> bool:
    """Whether the medians of data and simulations are positive: those of a quantity that happens to
    be positive in the data, and may be near zero, have no useful logarithms.
    """
    medians = torch.stack([_medians(x, name) for x in simulated]) if simulated else torch.ones(1)
    known = medians[medians.isfinite()]
    share = float((known > 0).double().mean()) if len(known) else 1.0
    is_positive = bool((_medians(cohort, name).nan_to_num(1.0) > 0).all())
    return is_positive and share >= PREDICTION.min_positive


def _locations(cohort: Cohort, name: str, is_log: bool) -> Tensor:
    """The median of each individual or its logarithm, which is NaN where it is not positive."""
    medians = _medians(cohort, name)
    return torch.where(medians > 0, medians, torch.nan).log() if is_log else medians


def _deviations(observed: Tensor, simulated: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations of the individuals from their prior predictions, shape ``(individual,)``, and the
    median deviations of the simulated cohorts, shape ``(population,)``.
    """
    middle = simulated.nanmedian(0).values
    return observed - middle, (simulated - middle).nanmedian(1).values


def _spread(x: Tensor) -> Tensor:
    """A robust standard deviation around the median."""
    known = x[x.isfinite()]
    return MAD_TO_SD * (known - known.median()).abs().median()


def _cohort_words(name: str, deviation: Tensor, of_prior: Tensor, is_log: bool) -> list[str]:
    """A sentence about all values of a series together, if they are far from the predictions."""
    known = deviation[deviation.isfinite()]
    spread = float(_spread(of_prior))
    if len(known) == 0 or spread <= 0:
        return []
    move = float(known.median())
    if abs(move) <= PREDICTION.max_cohort_distance * spread:
        return []
    size = f"a factor of {math.exp(move):.3g}" if is_log else f"{move:.3g}"
    unit = unit_words(move) if is_log else ""
    hint = f" ({unit})" if unit else ""
    return [
        f"The values of {name!r} lie {size}{hint} from the median of the prior predictions, "
        f"{abs(move) / spread:.1f} of their standard deviations: check the units of values, doses "
        "and times, and the prior."
    ]


def _relative_spreads(simulated: Tensor) -> Tensor:
    """How much the deviation of each individual from those of the others varies between the
    simulated cohorts, relative to the median individual, at least 1; shape ``(individual,)``.

    A single late sample varies many times as much as the median of many early ones.
    """
    deviation = simulated - simulated.nanmedian(0).values
    offset = deviation - deviation.nanmedian(1, keepdim=True).values
    spread = MAD_TO_SD * offset.abs().nanmedian(0).values
    middle = spread.nanmedian()
    return (spread / middle).nan_to_num(1.0, 1.0).clamp(min=1.0)


def _variable_spreads(cohort: Cohort, simulated: Tensor) -> Tensor:
    """The relative spreads, but 1 where the times or doses of an individual differ from those of
    the others by a unit: such a mistake makes it vary more, and must still be found.
    """
    size = _relative_spreads(simulated)
    for row in (size > 1.0).nonzero()[:, 0].tolist():
        if _of_times_and_doses(cohort, row):
            size[row] = 1.0
    return size


def _far_from_others(deviation: Tensor, size: Tensor) -> Tensor:
    """Which individuals deviate far from the others, shape ``(individual,)``.

    Args:
        deviation: Deviation of each individual, NaN where it is not known.
        size: How much it varies, relative to the median individual.
    """
    offset = deviation - deviation[deviation.isfinite()].median()
    spread = float(_spread(deviation))
    settings = PREDICTION
    most = torch.maximum(
        torch.full_like(size, settings.max_individual_distance),
        settings.max_variable_distance * size,
    )
    return offset.abs() > (most * spread).clamp(min=settings.min_log_ratio)


def _individual_words(cohort: Cohort, name: str, deviation: Tensor, far: Tensor) -> dict[int, str]:
    """A sentence about each individual whose values are far from those of the others."""
    offset = deviation - deviation[deviation.isfinite()].median()
    words = {}
    for row in far.nonzero()[:, 0].tolist():
        unit = unit_words(float(offset[row]))
        hint = f" ({unit})" if unit else ""
        words[row] = (
            f"the values of {name!r} are {math.exp(float(offset[row])):.3g} times what the model "
            f"makes of those of the others{hint}{_of_times_and_doses(cohort, row)}."
        )
    return words


def _last_times(cohort: Cohort) -> Tensor:
    """Time of the last recorded value of each individual, shape ``(individual,)``."""
    times = [torch.where(s.present, s.times, 0.0).amax(1) for s in cohort.series.values()]
    return torch.stack(times).amax(0)


def _of_times_and_doses(cohort: Cohort, row: int) -> str:
    """Whether the doses or times of an individual differ from those of the others by a unit."""
    columns = {"times": _last_times(cohort)}
    if cohort.doses is not None:
        amounts = torch.where(cohort.doses.given, cohort.doses.amounts, 0.0)
        columns["doses"] = amounts.amax(1)
    parts = []
    for name, x in columns.items():
        others = x[torch.arange(len(x)) != row]
        middle = float(others.median())
        if middle > 0 and float(x[row]) > 0:
            ratio = math.log(float(x[row]) / middle)
            if unit_words(ratio):
                parts.append(f"its {name} are {math.exp(ratio):.3g} times those of the others")
    return f"; {' and '.join(parts)}" if parts else ""
