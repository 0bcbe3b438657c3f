r"""Is this data inside what the guide was trained on? Individual by individual, with the reason.

An individual is compared with 1,000 individuals simulated from the training distribution under the
designs of the cohort: by the Mahalanobis distance of what the summary network makes of it, and by
plain features of each series (smallest, largest and mean value), which no network can blur. It lies
outside where it is a quarter farther out than all of the simulated ones. Its pattern of missing
values is compared with those of the training.

Given a population, posterior predictive p-values ask whether the model can produce the individual
at all: with draws :math:`\phi_k \sim p(\phi \mid y)` and replicates
:math:`y_k \sim p(y \mid \phi_k)`,

.. math:: P\big(\log p(y_k \mid \phi_k) < \log p(y \mid \phi_k)\big) .

The corrected estimator does not need the data to be inside; it then needs more draws, and the model
deserves a look.
"""

import warnings
from dataclasses import dataclass, replace

import pandas
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import AmortizedWarning, GuideError
from ..guide import AmortizedGuide
from ..guide.learned_likelihood import learned
from ..missing import Resample
from ..missing.mechanisms import nothing_missing
from ..model import ModelStructure, Population
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import IndividualPosteriors, sample_individuals

HARDLY = "the model hardly produces"
NUM_SIMULATED, LEAST_SIMULATED = 1000, 100
MARGIN = 1.25  # of the largest value in training, beyond which an individual lies outside
MAX_VALUES = 400_000
LEAST_P, FAR = 0.002, 4.0  # of posterior predictive checks: p-value, and standard deviations


@dataclass(frozen=True, eq=False)
class DataCheck:
    r"""Individuals against the training data. Made by :func:`check_data`.

    Args:
        ids: Labels of the individuals.
        distance: Distance of each individual's summary from those of the training, in units of the
            largest one there; shape ``(individual,)``.
        feature: Largest deviation of a plain feature, in the same kind of units.
        predictive: Posterior predictive p-value; NaN without a population.
        reasons: Why individuals lie outside, by label; empty where all are inside.
    """

    ids: tuple[str, ...]
    distance: Tensor
    feature: Tensor
    predictive: Tensor
    reasons: dict[str, list[str]]

    @property
    def outside(self) -> list[str]:
        """Labels of the individuals that lie outside."""
        return list(self.reasons)

    @property
    def verdict(self) -> str:
        """In words."""
        num = len(self.ids)
        if not self.reasons:
            return f"All {num} individuals lie inside what the guide was trained on."
        named = "; ".join(f"{i}: {', '.join(why)}" for i, why in list(self.reasons.items())[:5])
        more = "; ..." if len(self.reasons) > 5 else ""
        return f"{len(self.reasons)} of {num} individuals lie outside ({named}{more})."

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
    guide: AmortizedGuide,
    cohort: Cohort,
    *,
    population: Population | None = None,
    individuals: IndividualPosteriors | None = None,
    num_simulated: int = NUM_SIMULATED,
    seed: int = 0,
) -> DataCheck:
    r"""Find individuals that lie outside what the guide was trained on.

    Args:
        guide: The trained guide.
        cohort: The data.
        population: Population parameters (``fit.estimates``), for posterior predictive checks.
            Default: none are made.
        individuals: Posterior draws at a population that are there already
            (``fit.individuals``), in the place of ``population``.
        num_simulated: Individuals simulated for comparison.
        seed: Seed.

    Raises:
        GuideError: Fewer than 100 individuals are simulated, or the cohort is not of the form of
            the training data.
    """
    if num_simulated < LEAST_SIMULATED:
        raise GuideError(
            f"`num_simulated` is {num_simulated}.",
            f"at least {LEAST_SIMULATED}.",
            "pass a larger `num_simulated=`.",
        )
    structure, generator = guide.structure, make_generator(seed)
    cohort = cohort.to(dtype=torch.float64)
    reference = _simulated(guide, cohort, num_simulated, generator)
    with torch.no_grad():
        summaries = [learned(guide).summarize(x).double() for x in (reference, cohort)]
    distance = _relative_distance(*summaries)
    feature, named = _deviations(reference, cohort, structure.series)
    reasons: dict[str, list[str]] = {i: [why] for i, why in guide.patterns.unusual(cohort).items()}
    for i, label in enumerate(cohort.ids):
        why = reasons.setdefault(label, [])
        if float(feature[i]) > MARGIN:
            why.append(named[i])
        if float(distance[i]) > MARGIN:
            why.append(
                f"its summary lies {float(distance[i]):.1f} times as far out as the farthest "
                "simulated individual's"
            )
    predictive = torch.full((len(cohort),), torch.nan, dtype=torch.float64)
    if population is not None and individuals is None:
        with warnings.catch_warnings():  # what it warns of is among the reasons
            warnings.simplefilter("ignore", AmortizedWarning)
            individuals = sample_individuals(
                guide, cohort, population=population, num_draws=1000, seed=generator
            )
    if individuals is not None and structure.has_density:
        predictive, far = _predictive(individuals, generator)
        for i in ((predictive < LEAST_P) & (far > FAR)).nonzero()[:, 0].tolist():
            reasons[cohort.ids[i]].append(
                f"{HARDLY} it (posterior predictive p {float(predictive[i]):.3f}, "
                f"{float(far[i]):.0f} sd)"
            )
    reasons = {label: why for label, why in reasons.items() if why}
    return DataCheck(cohort.ids, distance, feature, predictive, reasons)


def _simulated(
    guide: AmortizedGuide, cohort: Cohort, num: int, generator: torch.Generator
) -> Cohort:
    """Individuals of the training distribution, under the designs of a cohort."""
    structure, training = guide.structure, guide.training_distribution
    plan = Resample(cohort, nothing_missing)(num, generator)
    truth = training.individual.draw(plan, 1, generator)[0]
    shared = training.shared.draw(num, generator)
    found, failed = structure.simulate(
        plan, truth, shared, structure.initial_population(), generator
    )
    return found[(~failed).nonzero()[:, 0]]


def _relative_distance(reference: Tensor, summaries: Tensor) -> Tensor:
    """Mahalanobis distances in units of the largest of the reference."""
    center = reference.median(0).values
    centered = reference - center
    values, axes = torch.linalg.eigh(centered.T @ centered / len(centered))
    scale = values.clamp(min=1e-6 * float(values.max()) + 1e-12).sqrt()
    own, others = ((x @ axes / scale).norm(dim=-1) for x in (summaries - center, centered))
    return own / others.max()


def _deviations(reference: Cohort, cohort: Cohort, names: list[str]) -> tuple[Tensor, list[str]]:
    """Largest deviation of a feature from the middle of the simulated range, in units of half of
    it, and which it is.
    """
    found, labels = [], []
    for name in names:
        theirs, mine = _features(reference, name), _features(cohort, name)
        for label, x in theirs.items():
            known = x[x.isfinite()]
            if len(known) == 0:
                continue
            low, high = known.min(), known.max()
            apart = _beyond(mine[label], known)
            if float(low) > 0:  # a positive quantity: also in orders of magnitude
                tiny = float(low) * 1e-12
                apart = apart.maximum(_beyond(mine[label].clamp(min=tiny).log(), known.log()))
            found.append(apart.nan_to_num(0.0))
            labels.append((f"{label} of {name!r}", mine[label], low, high))
    if not found:
        return torch.zeros(len(cohort), dtype=torch.float64), [""] * len(cohort)
    table = torch.stack(found)
    worst = table.argmax(0).tolist()
    words = []
    for i, j in enumerate(worst):
        label, mine_, low, high = labels[j]
        words.append(
            f"{label} is {float(mine_[i]):.4g}, in training {float(low):.4g} to {float(high):.4g}"
        )
    return table.max(0).values, words


def _beyond(mine: Tensor, reference: Tensor) -> Tensor:
    """Distance from the reference's median, in units of its farthest value on that side."""
    low, middle, high = reference.min(), reference.median(), reference.max()
    above = (mine - middle) / (high - middle).clamp(min=1e-12)
    return torch.maximum(above, (middle - mine) / (middle - low).clamp(min=1e-12))


def _features(cohort: Cohort, name: str) -> dict[str, Tensor]:
    """Plain features of each individual's recorded values; NaN where there are none."""
    s = cohort[name]
    seen, values = s.observed.flatten(1), s.values.double().flatten(1)
    nothing = torch.where(seen.any(1), 0.0, torch.nan).double()
    num = seen.sum(1).clamp(min=1)
    mean = torch.where(seen, values, 0.0).sum(1) / num
    low = torch.where(seen, values, torch.inf).amin(1)
    high = torch.where(seen, values, -torch.inf).amax(1)
    return {
        "the mean": mean + nothing,
        "the smallest value": low + nothing,
        "the largest value": high + nothing,
    }


def _predictive(
    individuals: IndividualPosteriors, generator: torch.Generator, num_draws: int = 1000
) -> tuple[Tensor, Tensor]:
    """P-value of the log density of the data among those of replicates, and how many of their
    standard deviations it lies below their mean; shape ``(individual,)``.
    """
    structure: ModelStructure = individuals.structure
    cohort, population = individuals.cohort, individuals.population
    draws = individuals.resampled(num_draws, generator)
    per_draw = sum(cohort[n].values.numel() for n in structure.series)
    own, theirs = [], []
    with torch.no_grad():
        for some in draws.split(max(1, MAX_VALUES // per_draw)):
            own.append(structure.log_density(cohort, some, population).observation)
            replicates = structure.predict_draws(cohort, some, population, generator)
            many = cohort.repeat(len(some))
            values = {n: _finite(x.flatten(0, 1), many, n) for n, x in replicates.items()}
            rows = some.reshape(1, -1, some.shape[-1])
            density = structure.log_density(_with_values(many, values), rows, population)
            theirs.append(density.observation.reshape(len(some), -1))
    found, mine = torch.cat(theirs), torch.cat(own)
    p_values = ((found <= mine).double().sum(0) + 1) / (num_draws + 1)
    apart = found - mine
    return p_values, apart.mean(0) / apart.std(0).clamp(min=1e-12)


def _with_values(cohort: Cohort, values: dict[str, Tensor]) -> Cohort:
    """A cohort of new values under labels of its own."""
    found = cohort.with_values(values)
    return replace(found, ids=tuple(str(i) for i in range(len(found))))


def _finite(values: Tensor, cohort: Cohort, name: str) -> Tensor:
    """Replicates without what is not finite, where the recorded value stays."""
    return torch.where(values.isfinite(), values, cohort[name].values)
