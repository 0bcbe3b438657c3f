r"""Whether the data of each individual lie inside what a program or a guide expects, and why not.

For a program, before anything is trained or fitted, the data are compared with its predictions
under the prior (:mod:`pyro_amortized.population.prior_predictions`): values of all individuals, or
of one, in another unit.

For a guide, individuals are simulated from the training distribution under the designs of the
cohort. An individual of the cohort is compared with them in three ways:

- the Mahalanobis distance of the output of the summary network;
- plain features of each series (mean, smallest and largest value), which do not depend on a
  network;
- the pattern of missing values, compared with the patterns of the training.

It lies outside where a distance or a feature is a quarter farther from the middle than that of any
simulated individual.

If population parameters are given, posterior predictive p-values
(:mod:`pyro_amortized.diagnostics.predictive_p_values`) say whether the model can produce the data
of the individual at all.

The corrected estimator is valid outside the training data, too, but needs more draws there, and the
model should be looked at.
"""

import warnings
from dataclasses import dataclass

import pandas
import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import AmortizedWarning, GuideError
from ..guide import AmortizedGuide
from ..missing import Resample, nothing_missing
from ..model import Model, ModelStructure, Population, read_structure
from ..population.prior_predictions import compare_with_prior
from ..runtime.random_numbers import make_generator
from ..runtime.short_lists import first_few
from ..sampling.individual_draws import sample_individuals
from ..sampling.individuals import IndividualPosteriors
from .predictive_p_values import log_density_p_values


@dataclass(frozen=True)
class DataCheckSettings:
    r"""Limits of the comparison of data with the training.

    Args:
        num_simulated: Simulated individuals, by default.
        min_simulated: Fewest simulated individuals: the largest of fewer values says little about
            the range.
        margin: An individual lies outside where it is this many times as far from the middle as the
            farthest simulated individual. In cohorts of the right model at most one of 40
            individuals then lies outside (``tests/diagnostics/test_data_check.py``).
        min_p_value: Posterior predictive p-value below which the model hardly produces the data ...
        min_deviation: ... if their log density also lies this many standard deviations below the
            mean of the replicates. Of a large cohort some p-values are small by chance; few data
            are both.
        min_eigenvalue: Smallest eigenvalue of the covariance of the summaries, relative to the
            largest: summaries may be linearly dependent.
        max_named: Most individuals that the verdict names.
    """

    num_simulated: int = 1000
    min_simulated: int = 100
    margin: float = 1.25
    min_p_value: float = 0.002
    min_deviation: float = 4.0
    min_eigenvalue: float = 1e-6
    max_named: int = 5


DEFAULTS = DataCheckSettings()
UNLIKELY = "the model hardly produces such data"


@dataclass(frozen=True, eq=False)
class DataCheck:
    r"""The data of each individual against what is expected. Made by :func:`check_data`.

    Args:
        ids: Labels of the individuals.
        distance: Distance of each individual's summary from the median of the simulated ones, in
            units of the largest distance among them; shape ``(individual,)``; NaN without a guide.
        feature: Largest deviation of a plain feature from its simulated median, in units of the
            largest simulated deviation; shape ``(individual,)``; NaN without a guide.
        predictive: Posterior predictive p-value, shape ``(individual,)``; NaN without population
            parameters.
        reasons: Why individuals lie outside, by label; empty if all lie inside.
        of_all: What is unusual about all individuals together, one sentence per series.
        expected_by: What the data were compared with, for the verdict.
    """

    ids: tuple[str, ...]
    distance: Tensor
    feature: Tensor
    predictive: Tensor
    reasons: dict[str, list[str]]
    of_all: tuple[str, ...] = ()
    expected_by: str = "the guide was trained on"

    @property
    def outside(self) -> list[str]:
        """Labels of the individuals that lie outside."""
        return list(self.reasons)

    @property
    def is_only_unlikely(self) -> bool:
        """Whether individuals lie outside only because the model hardly produces their data."""
        reasons = [reason for of_one in self.reasons.values() for reason in of_one]
        return bool(reasons) and all(reason.startswith(UNLIKELY) for reason in reasons)

    @property
    def verdict(self) -> str:
        """The result in words."""
        num = len(self.ids)
        together = " ".join(self.of_all)
        if not self.reasons:
            inside = f"All {num} individuals lie inside what {self.expected_by}."
            return together or inside
        of_each = [f"{label}: {', '.join(reasons)}" for label, reasons in self.reasons.items()]
        named = first_few(of_each, DEFAULTS.max_named, "; ")
        return (
            f"{len(self.reasons)} of {num} individuals lie outside what {self.expected_by} "
            f"({named}). {together}".rstrip()
        )

    def table(self) -> pandas.DataFrame:
        """One row per individual."""
        columns = {
            "summary distance": self.distance.numpy(),
            "feature deviation": self.feature.numpy(),
            "predictive p": self.predictive.numpy(),
            "outside": ["; ".join(self.reasons.get(i, [])) for i in self.ids],
        }
        return pandas.DataFrame(columns, index=pandas.Index(self.ids, name="individual"))

    def __str__(self) -> str:
        return self.verdict


def check_data(
    subject: AmortizedGuide | Model,
    cohort: Cohort,
    *,
    population: Population | None = None,
    individuals: IndividualPosteriors | None = None,
    num_simulated: int = DEFAULTS.num_simulated,
    seed: int = 0,
) -> DataCheck:
    r"""Find individuals that lie outside what a program expects, or a guide was trained on.

    Args:
        subject: A program, before anything is trained: the data are compared with its predictions
            under the prior. Or a trained guide.
        cohort: The data.
        population: Population parameters (``fit.estimates``), for posterior predictive checks.
            Default: no such checks.
        individuals: Posterior draws at population parameters (``fit.individuals``), if they have
            been drawn already; they replace ``population``.
        num_simulated: Number of simulated individuals.
        seed: Seed of all random numbers.

    Raises:
        GuideError: Fewer than 100 individuals are to be simulated, or the cohort does not have the
            form of the training data.
        ModelError: The program cannot be read.
    """
    if not isinstance(subject, AmortizedGuide):
        return _check_with_program(read_structure(subject, cohort), cohort)
    if num_simulated < DEFAULTS.min_simulated:
        raise GuideError(
            f"`num_simulated` is {num_simulated}.",
            f"at least {DEFAULTS.min_simulated}.",
            "pass a larger `num_simulated=`.",
        )
    if population is not None and individuals is None:
        individuals = _sampled(subject, cohort, population, seed)
    return _check_with_guide(subject, cohort, individuals, num_simulated, make_generator(seed))


def _sampled(
    guide: AmortizedGuide, cohort: Cohort, population: Population, seed: int
) -> IndividualPosteriors:
    with warnings.catch_warnings():  # the reasons hold what it would warn of
        warnings.simplefilter("ignore", AmortizedWarning)
        return sample_individuals(
            guide.model, cohort, population, guide=guide, num_draws=1000, seed=seed
        )


def _check_with_guide(
    guide: AmortizedGuide,
    cohort: Cohort,
    individuals: IndividualPosteriors | None,
    num_simulated: int,
    generator: Generator,
) -> DataCheck:
    """The data beside simulations of the training of a guide."""
    structure = guide.structure
    cohort = cohort.to(dtype=torch.float64)
    simulated = _simulate(guide, cohort, num_simulated, generator)
    with torch.no_grad():
        summaries = [guide.networks.summarize(x).double() for x in (simulated, cohort)]
    distance = _relative_distance(*summaries)
    feature, feature_words = _feature_deviations(simulated, cohort, structure.series)
    reasons = {i: [reason] for i, reason in guide.patterns.unusual(cohort).items()}
    for row, label in enumerate(cohort.ids):
        reasons.setdefault(label, []).extend(
            _reasons(float(distance[row]), float(feature[row]), feature_words[row])
        )
    p_value = torch.full((len(cohort),), torch.nan, dtype=torch.float64)
    if individuals is not None and structure.has_density:
        p_value, deviation = log_density_p_values(individuals, generator)
        for row, reason in _unlikely(p_value, deviation).items():
            reasons[cohort.ids[row]].append(reason)
    outside = {label: reasons_of_one for label, reasons_of_one in reasons.items() if reasons_of_one}
    return DataCheck(cohort.ids, distance, feature, p_value, outside)


def _check_with_program(structure: ModelStructure, cohort: Cohort) -> DataCheck:
    """The data beside the predictions of a program under its prior."""
    compared = compare_with_prior(structure, cohort)
    unknown = torch.full((len(cohort),), torch.nan, dtype=torch.float64)
    reasons = {i: [x.rstrip(".") for x in words] for i, words in compared.individuals.items()}
    return DataCheck(
        cohort.ids,
        distance=unknown,
        feature=unknown,
        predictive=unknown,
        reasons=reasons,
        of_all=compared.cohort,
        expected_by="the program predicts under its prior",
    )


def _reasons(distance: float, feature: float, feature_words: str) -> list[str]:
    """Why one individual lies outside."""
    reasons = [feature_words] if feature > DEFAULTS.margin else []
    if distance > DEFAULTS.margin:
        reasons.append(
            f"its summary lies {distance:.1f} times as far from the middle as that of the farthest "
            "simulated individual"
        )
    return reasons


def _unlikely(p_value: Tensor, deviation: Tensor) -> dict[int, str]:
    """Rows of the individuals that the model hardly produces, with the reason in words."""
    unlikely = (p_value < DEFAULTS.min_p_value) & (deviation > DEFAULTS.min_deviation)
    return {
        row: f"{UNLIKELY} (posterior predictive p-value {float(p_value[row]):.3f}, log density "
        f"{float(deviation[row]):.0f} standard deviations below that of replicates)"
        for row in unlikely.nonzero()[:, 0].tolist()
    }


def _simulate(guide: AmortizedGuide, cohort: Cohort, num: int, generator: Generator) -> Cohort:
    """Individuals of the training distribution under the designs of a cohort."""
    structure, training = guide.structure, guide.training_distribution
    plan = Resample(cohort, nothing_missing)(num, generator)
    truth = training.individual.draw(plan, 1, generator)[0]
    shared = training.shared.draw(num, generator)
    simulated, failed = structure.simulate(
        plan, truth, shared, structure.initial_population(), generator
    )
    return simulated[(~failed).nonzero()[:, 0]]


def _relative_distance(simulated: Tensor, summaries: Tensor) -> Tensor:
    """Mahalanobis distances from the median of simulated summaries, in units of the largest one
    among them; summaries of shape ``(individual, summary)``.
    """
    center = simulated.median(0).values
    centered = simulated - center
    values, axes = torch.linalg.eigh(centered.T @ centered / len(centered))
    scale = values.clamp(min=DEFAULTS.min_eigenvalue * float(values.max()) + 1e-12).sqrt()
    distance, largest = ((x @ axes / scale).norm(dim=-1) for x in (summaries - center, centered))
    return distance / largest.max()


def _feature_deviations(
    simulated: Cohort, cohort: Cohort, names: list[str]
) -> tuple[Tensor, list[str]]:
    """The largest deviation of a feature of each individual, in units of the largest simulated one,
    and that feature in words. Features of positive quantities are also compared in logarithms, so
    that values of another order of magnitude stand out at the lower end.
    """
    deviations, ranges = [], []
    for name in names:
        features = _features(cohort, name)
        for label, x in _features(simulated, name).items():
            known = x[x.isfinite()]
            if len(known) == 0:
                continue
            low, high = known.min(), known.max()
            deviation = _relative_deviation(features[label], known)
            if float(low) > 0:
                logarithms = features[label].clamp(min=float(low) * 1e-12).log()
                deviation = deviation.maximum(_relative_deviation(logarithms, known.log()))
            deviations.append(deviation.nan_to_num(0.0))
            ranges.append((f"{label} of {name!r}", features[label], low, high))
    if not deviations:
        return torch.zeros(len(cohort), dtype=torch.float64), [""] * len(cohort)
    table = torch.stack(deviations)
    words = []
    for row, j in enumerate(table.argmax(0).tolist()):
        label, values, low, high = ranges[j]
        words.append(
            f"{label} is {float(values[row]):.4g}, "
            f"in training {float(low):.4g} to {float(high):.4g}"
        )
    return table.max(0).values, words


def _relative_deviation(values: Tensor, simulated: Tensor) -> Tensor:
    """Deviation from the simulated median, in units of the largest simulated one on that side."""
    low, middle, high = simulated.min(), simulated.median(), simulated.max()
    above = (values - middle) / (high - middle).clamp(min=1e-12)
    return torch.maximum(above, (middle - values) / (middle - low).clamp(min=1e-12))


def _features(cohort: Cohort, name: str) -> dict[str, Tensor]:
    """Plain features of each individual's recorded values; NaN where none is recorded."""
    series = cohort[name]
    observed, values = series.observed.flatten(1), series.values.double().flatten(1)
    nan_if_empty = torch.where(observed.any(1), 0.0, torch.nan).double()
    num = observed.sum(1).clamp(min=1)
    mean = torch.where(observed, values, 0.0).sum(1) / num
    low = torch.where(observed, values, torch.inf).amin(1)
    high = torch.where(observed, values, -torch.inf).amax(1)
    return {
        "the mean": mean + nan_if_empty,
        "the smallest value": low + nan_if_empty,
        "the largest value": high + nan_if_empty,
    }
