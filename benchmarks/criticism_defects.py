"""Defects of studies, models and files, each weak, middle and strong, for `criticism.py`.

A defect changes one step of a simulated study: the parameters of the individuals, their curves, the
errors of the measurements, or what is written down (`criticism_files.py`). Sizes are in standard
deviations of the individual parameters or of the errors, or are what the comment says. Each defect
has the names of the checks that are about it, and words that one of them must say.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from criticism_studies import Study, turnover_curve
from pyro_amortized import nlme

Step = Callable[[Study, float], Tensor]
COVARIATES = ("random effects and covariates",)
INTERACTIONS = ("interactions of covariates",)
VARIANCES = ("variances of random effects",)
CORRELATIONS = ("correlations of random effects",)
DISTRIBUTION = ("distribution of random effects",)
RESIDUALS = ("residuals of y", "errors of y")
PERSONS = (*DISTRIBUTION, "influence of individuals", "units and scale of the data", *RESIDUALS)


@dataclass(frozen=True)
class Defect:
    """What a defect changes, its sizes (weak, middle, strong), and the checks that are about it.

    Args:
        checks: Names of the checks.
        sizes: The sizes.
        population: New individual parameters.
        curve: New curves.
        error: New values.
        file: A new study, of what is written down.
        words: A regular expression that the words of one of the checks must contain.
        only: Names of the models that can have the defect; all if empty.
    """

    checks: tuple[str, ...]
    sizes: tuple[float, float, float]
    population: Step | None = None
    curve: Step | None = None
    error: Step | None = None
    file: Callable[[Study, float], Study] | None = None
    words: str = ""
    only: tuple[str, ...] = ()


def moved(place: str, shift: Callable[[Study], Tensor]) -> Step:
    """One parameter moved by a shift in its standard deviations, times the size."""

    def population(study: Study, size: float) -> Tensor:
        problem = study.problem
        index = {"main": problem.main, "first": 0, "weight": problem.weight[0]}[place]
        unit = torch.eye(len(problem.omega), dtype=torch.float64)[index]
        return study.phi + size * shift(study).double().unsqueeze(-1) * problem.omega * unit

    return population


def effects(study: Study) -> Tensor:
    return (study.phi - study.problem.typical) / study.problem.omega


def with_effect(study: Study, index: int, effect: Tensor) -> Tensor:
    e = effects(study).clone()
    e[:, index] = effect
    return study.problem.typical + study.problem.omega * e


def years(study: Study) -> Tensor:
    return ((study.covariates["age"] - 45) / 14.4).double()


def relative_weight(study: Study) -> Tensor:
    return (study.covariates["weight"] / 70).log().double()


def wrong_weight(study: Study, size: float) -> Tensor:
    """The known effect of the weight is not there (size 1), or has the wrong sign (size 2)."""
    index, slope = study.problem.weight
    unit = torch.eye(len(study.problem.omega), dtype=torch.float64)[index]
    return study.phi - size * slope * relative_weight(study).unsqueeze(-1) * unit


def correlated(study: Study, size: float) -> Tensor:
    e, main = effects(study), study.problem.main
    other = main - 1
    return with_effect(study, main, size * e[:, other] + (1 - size**2) ** 0.5 * e[:, main])


def two_groups(study: Study, size: float) -> Tensor:
    """Slow and fast individuals, each group a tenth as wide as their distance."""
    main = study.problem.main
    sign = torch.where(torch.rand(len(study), generator=study.generator) < 0.5, -1.0, 1.0)
    return with_effect(study, main, size * sign + 0.2 * effects(study)[:, main])


def heavy_effects(study: Study, size: float) -> Tensor:
    """Student's t; the size is the inverse of the degrees of freedom."""
    main, num = study.problem.main, max(1, round(1 / size))
    chi2 = sum(study.normal(len(study)).square() for _ in range(num)) / num
    return with_effect(study, main, effects(study)[:, main] / chi2.sqrt())


def skewed_effects(study: Study, size: float) -> Tensor:
    main = study.problem.main
    skewed = torch.expm1(size * effects(study)[:, main]) / size
    return with_effect(study, main, skewed)


def wider_in_a_group(study: Study, size: float) -> Tensor:
    main = study.problem.main
    factor = torch.where(study.covariates["sex"] == 1, size, 1.0).double()
    return with_effect(study, main, factor * effects(study)[:, main])


def wrong_structure(study: Study, size: float) -> Tensor:
    """Two compartments; a curve that bends; a baseline that falls during the study."""
    right = study.problem.curve(study, study.phi)
    if study.problem.dosed:
        ka, cl, v = study.phi.exp().unbind(-1)
        parameters = {"ka": ka, "cl": cl, "v": v / 2, "q": cl, "v2": 2 * v}
        other = nlme.two_compartments(study.times, study.doses(), **parameters)
        return right * (other / right) ** size
    if len(study.problem.omega) == 2:
        return right + 0.25 * size * study.times * (study.times - study.times[:, -1:])
    return right * torch.exp(-0.02 * size * study.times)


def late(study: Study, size: float) -> Tensor:
    """The process begins late, by a part of the third time."""
    delay = size * float(study.problem.times[2])
    after = (study.times - delay).clamp(min=0.0)
    return study.problem.curve(_at(study, after), study.phi).clamp(min=0.05)


def _at(study: Study, times: Tensor) -> Study:
    return replace(study, times=times)


def changed_rate(study: Study, size: float) -> Tensor:
    """From the middle of the study on, time runs faster: induction, maturation."""
    middle = float(study.problem.times[4])
    if study.problem.dosed:
        _, cl, v = study.phi.exp().unbind(-1)
        rate = (cl / v).unsqueeze(-1)
        right = study.problem.curve(study, study.phi)
        return right * torch.exp(-size * rate * (study.times - 6.0).clamp(min=0.0))
    if len(study.problem.omega) == 3:
        faster = study.times + size * (study.times - 4.0).clamp(min=0.0)
        return turnover_curve(faster, study.phi)
    after = study.times + 0.5 * size * (study.times - middle).clamp(min=0.0)
    return study.problem.curve(_at(study, after), study.phi)


def saturable(study: Study, size: float) -> Tensor:
    """Clearance falls with the dose, from 50 to 200 by the power of the size."""
    phi = study.phi.clone()
    phi[:, 1] -= size * (study.amounts[:, 0] / 100).log()
    return study.problem.curve(study, phi)


def carried_over(study: Study, size: float) -> Tensor:
    """Rests of an earlier period, of different size, decay until the middle of the study."""
    right = study.problem.curve(study, study.phi)
    scale = study.problem.deviation(right.mean()) * study.normal(len(study), 1).abs()
    rate = 3 / float(study.problem.times[4])
    return right + size * scale * torch.exp(-rate * study.times)


def occasions(study: Study, size: float) -> Tensor:
    """The second half of the values belongs to another occasion, with another main parameter."""
    second = with_effect(
        study,
        study.problem.main,
        effects(study)[:, study.problem.main] + size * study.normal(len(study)),
    )
    first, other = (study.problem.curve(study, x) for x in (study.phi, second))
    half = study.times >= study.problem.times[len(study.problem.times) // 2]
    return torch.where(half, other, first)


def noise(study: Study, factor: Tensor | float = 1.0, unit: Tensor | None = None) -> Tensor:
    unit = study.normal(*study.values.shape) if unit is None else unit
    return study.values + factor * study.problem.deviation(study.values) * unit


def other_deviation(study: Study, size: float) -> Tensor:
    """An additive error where the model has a proportional one, or the other way round."""
    right = study.problem.deviation(study.values)
    if len(study.problem.omega) == 2:
        start = study.values - study.values.min() + 2
        wrong = 2 * start / start.mean()
    else:
        wrong = 0.3 * right.mean()
    unit = study.normal(*study.values.shape)
    return study.values + right ** (1 - size) * wrong**size * unit


def heavy_errors(study: Study, size: float) -> Tensor:
    num = max(1, round(1 / size))
    shape = study.values.shape
    chi2 = sum(study.normal(*shape).square() for _ in range(num)) / num
    return noise(study, 1.0, study.normal(*shape) / chi2.sqrt())


def autocorrelated(study: Study, size: float) -> Tensor:
    unit = study.normal(*study.values.shape)
    for j in range(1, unit.shape[1]):
        unit[:, j] = size * unit[:, j - 1] + (1 - size**2) ** 0.5 * unit[:, j]
    return noise(study, 1.0, unit)


def larger_at_a_site(study: Study, size: float) -> Tensor:
    return noise(study, torch.where(study.covariates["site"] == 1, size, 1.0)[:, None].double())


def careless(study: Study, size: float) -> Tensor:
    return noise(study, torch.exp(size * study.normal(len(study), 1)))


def growing_errors(study: Study, size: float) -> Tensor:
    rank = torch.linspace(0, 1, study.values.shape[1]).double()
    return noise(study, size**rank)


def larger_at_high_dose(study: Study, size: float) -> Tensor:
    return noise(study, (1 + size * (study.covariates["group"] == 1)).unsqueeze(-1))


def of_age(study: Study) -> Tensor:
    return (years(study) > 0).double() * 2 - 1


POPULATION = {
    "sex moves a parameter": Defect(
        COVARIATES, (0.7, 1.2, 3.0), moved("main", lambda s: s.covariates["sex"]), words="sex"
    ),
    "weight moves another parameter": Defect(
        COVARIATES, (2.0, 4.0, 8.0), moved("main", relative_weight), words="weight"
    ),
    "age moves a parameter": Defect(
        COVARIATES, (0.4, 0.7, 2.0), moved("first", years), words="age"
    ),
    "middle ages are lower": Defect(
        COVARIATES, (0.5, 1.0, 2.0), moved("main", lambda s: years(s).square()), words="age"
    ),
    "a step at an age": Defect(COVARIATES, (0.4, 0.7, 2.0), moved("main", of_age), words="age"),
    "one site differs": Defect(
        COVARIATES,
        (1.0, 1.8, 4.0),
        moved("main", lambda s: s.covariates["site"] == 2),
        words="site",
    ),
    "a drift with the order": Defect(
        COVARIATES,
        (0.7, 1.2, 2.5),
        moved("main", lambda s: torch.linspace(-1, 1, len(s))),
        words="order",
    ),
    "sex matters in one group": Defect(
        (*INTERACTIONS, *COVARIATES),
        (1.0, 1.8, 4.0),
        moved("main", lambda s: s.covariates["sex"] * s.covariates["group"]),
        words="sex",
    ),
    "a known effect is wrong": Defect(COVARIATES, (0.5, 1.0, 2.0), wrong_weight, words="weight"),
    "a correlation": Defect(CORRELATIONS, (0.4, 0.6, 0.9), correlated),
    "slow and fast individuals": Defect(DISTRIBUTION, (1.0, 1.5, 3.0), two_groups),
    "heavy tails of a parameter": Defect(DISTRIBUTION, (0.25, 0.5, 1.0), heavy_effects),
    "a skewed parameter": Defect(DISTRIBUTION, (0.4, 0.7, 1.2), skewed_effects),
    "a group varies more": Defect(VARIANCES, (2.0, 3.0, 5.0), wider_in_a_group, words="sex"),
}
CURVES = {
    "another structure": Defect(RESIDUALS, (0.3, 0.6, 1.0), curve=wrong_structure),
    "a late start": Defect(RESIDUALS, (0.2, 0.35, 0.7), curve=late),
    "a rate that changes": Defect(RESIDUALS, (0.4, 0.8, 2.0), curve=changed_rate),
    "clearance falls with the dose": Defect(
        (*COVARIATES, *RESIDUALS), (0.25, 0.5, 1.0), curve=saturable, only=("pk",), words="dose"
    ),
    "carried over": Defect(RESIDUALS, (2.0, 4.0, 10.0), curve=carried_over),
    "occasions": Defect((*RESIDUALS, *CORRELATIONS), (0.7, 1.2, 3.0), curve=occasions),
}
ERRORS = {
    "another error model": Defect(RESIDUALS, (0.3, 0.6, 1.0), error=other_deviation),
    "errors with heavy tails": Defect(RESIDUALS, (0.15, 0.3, 0.5), error=heavy_errors),
    "errors that go together": Defect(
        RESIDUALS, (0.3, 0.6, 0.9), error=autocorrelated, words="neighbouring"
    ),
    "a site with larger errors": Defect(
        RESIDUALS, (1.5, 2.0, 4.0), error=larger_at_a_site, words="site"
    ),
    "individuals with larger errors": Defect(RESIDUALS, (0.3, 0.5, 1.0), error=careless),
    "errors that grow with time": Defect(RESIDUALS, (2.0, 3.0, 8.0), error=growing_errors),
    "a group with larger errors": Defect(
        RESIDUALS, (0.5, 1.0, 3.0), error=larger_at_high_dose, words="group"
    ),
}
