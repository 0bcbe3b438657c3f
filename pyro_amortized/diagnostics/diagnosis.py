r"""The default battery: one call, a table, a figure, a verdict in words.

What calibration does not see (a simulator that ignores a parameter; errors that cancel on the
average) has checks of its own. Of the guide:

- ranks of every parameter, against simultaneous bands, raw and corrected; coverage of the joint
  posterior (TARP); ranks that depend on the data (local test);
- efficiency: effective draws of the uncorrected guide, median and worst tenth;
- does every individual parameter, and every shared one, move the simulated data?

Of a fit, besides: convergence, Pareto k of every individual, whether its data are inside what the
guide was trained on, and whether residuals are what the model says (npde: mean, variance, trend,
and spread that depends on the prediction).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas
import scipy.stats
from torch import Generator

from ..cohort import Cohort, Design
from ..errors import TrainingError
from ..guide import AmortizedGuide
from ..missing import default_design
from ..population.fit_result import PopulationFit
from ..runtime.arguments import check_is
from ..runtime.random_numbers import fork_seed, make_generator
from ..sampling.importance_weights import PARETO_K_LIMIT
from .calibration import calibrate
from .calibration_result import Calibration
from .data_check import HARDLY, DataCheck, check_data
from .parameter_influence import influence
from .residual_analysis import Residuals, residuals

Status = Literal["passed", "look", "failed"]
About = Literal["inference", "model"]
FAILED_P, LOOK_P = 1e-3, 1e-2  # of all tests of one kind together (Bonferroni)
FAIR, POOR = 0.3, 0.1  # median share of effective draws of the uncorrected guide
LEAST_MOVE = 1e-3  # of the data by a parameter, in standard deviations of the observations
LEAST_CONTRACTION = 0.02
LEAST_VALUES = 20  # that residuals are judged by


@dataclass(frozen=True)
class Check:
    r"""One check.

    Args:
        name: What was checked.
        status: ``"passed"``, ``"look"`` (have a look), ``"failed"``.
        value: The figure behind it.
        words: What it means, and what to do where it did not pass.
        about: Whether it is the inference that is in doubt, or the model.
    """

    name: str
    status: Status
    value: float
    words: str
    about: About = "inference"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    r"""The battery's findings. Made by :func:`diagnose`.

    Args:
        checks: All checks.
        calibration: Of the guide.
        data: Of the individuals, where there was a fit.
        residuals: By series, where there was a fit.
    """

    checks: tuple[Check, ...]
    calibration: Calibration
    data: DataCheck | None = None
    residuals: tuple[Residuals, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(c.status != "failed" for c in self.checks)

    def status(self, name: str) -> Status:
        """Of the first check of a name."""
        return next(c.status for c in self.checks if c.name == name)

    @property
    def verdict(self) -> str:
        """In words."""
        failed = [c for c in self.checks if c.status == "failed"]
        look = [c for c in self.checks if c.status == "look"]
        if not failed and not look:
            return f"All {len(self.checks)} checks passed."
        if any(c.about == "inference" for c in failed):
            opening = f"NOT TO BE TRUSTED: {len(failed)} of {len(self.checks)} checks failed."
        elif failed:
            opening = "THE MODEL DOES NOT FIT THE DATA; the inference itself passed."
        else:
            opening = f"No check failed; {len(look)} of {len(self.checks)} deserve a look."
        lines = [f"- {c.name} ({c.status}): {c.words}" for c in failed + look]
        return "\n".join([opening, *lines])

    def table(self) -> pandas.DataFrame:
        """One row per check."""
        rows = [(c.name, c.status, c.value, c.words) for c in self.checks]
        return pandas.DataFrame(rows, columns=["check", "status", "value", "words"])

    def __str__(self) -> str:
        return self.verdict


def diagnose(
    subject: PopulationFit | AmortizedGuide,
    design: Cohort | Design | None = None,
    *,
    num_individuals: int = 300,
    num_draws: int = 1000,
    seed: int = 0,
) -> Diagnosis:
    r"""Run the battery on a fit, or on a guide alone.

    Args:
        subject: A fit (its guide, its data, its residuals), or a guide.
        design: Where times, doses, covariates and missingness of the simulated individuals come
            from; a cohort, or a design. Default: the fit's cohort; needed for a guide.
        num_individuals: Simulated individuals of the calibration.
        num_draws: Draws of each.
        seed: Seed of everything.

    Raises:
        TrainingError: A guide without a design.

    Example:
        ``print(diagnose(fit))``; ``diagnose(fit).table()``; ``plots.battery(diagnose(fit))``.
    """
    check_is("subject", subject, (PopulationFit, AmortizedGuide), "pass a fit or a guide.")
    fit = subject if isinstance(subject, PopulationFit) else None
    guide = subject.guide if isinstance(subject, PopulationFit) else subject
    if design is None:
        if fit is None:
            raise TrainingError(
                "A guide without data.",
                "a cohort or a design to simulate under.",
                "pass `diagnose(guide, cohort)`, or a fit.",
            )
        design = fit.cohort
    generator = make_generator(seed)
    calibration = calibrate(
        guide,
        design,
        num_individuals=num_individuals,
        num_draws=num_draws,
        seed=fork_seed(generator),
    )
    checks = [*_of_ranks(calibration), *_of_efficiency(calibration)]
    plan = default_design(design) if isinstance(design, Cohort) else design
    checks += _of_influence(guide, plan, calibration, generator)
    if fit is None:
        return Diagnosis(tuple(checks), calibration)
    data = check_data(guide, fit.cohort, individuals=fit.individuals, seed=fork_seed(generator))
    series = [n for n in fit.structure.series if fit.cohort[n].values.dim() == 2]
    left = tuple(residuals(fit, series=n, seed=fork_seed(generator)) for n in series)
    checks += [*_of_fit(fit), _of_data(data), *(c for r in left for c in _of_residuals(r))]
    return Diagnosis(tuple(checks), calibration, data, left)


def _by_p(
    name: str,
    p_values: dict[str, float],
    advice: str,
    about: About = "inference",
) -> Check:
    """Passed where the smallest of several p-values is no smaller than chance makes it."""
    worst = min(p_values, key=lambda n: p_values[n])
    p = min(1.0, p_values[worst] * len(p_values))
    status: Status = "failed" if p < FAILED_P else "look" if p < LOOK_P else "passed"
    words = "no deviation" if status == "passed" else f"{worst} deviates; {advice}"
    return Check(name, status, p, words, about)


def _of_ranks(c: Calibration) -> list[Check]:
    train = "train the guide longer (`guide.history.advice`); the correction mends what it costs"
    report = "results are biased: more draws, or report the model as a defect"
    checks = [_softened(_by_p("ranks, raw guide", c.uniform_p_values(raw=True), train))]
    checks += [
        _softened(_by_p("joint coverage, raw guide", {"all": c.tarp_p_value(raw=True)}, train))
    ]
    checks += [_softened(_by_p("local ranks, raw guide", c.local_p_values(raw=True), train))]
    if not bool(c.ess.isnan().any()):
        checks += [_by_p("ranks, corrected", c.uniform_p_values(), report)]
        checks += [_by_p("joint coverage, corrected", {"all": c.tarp_p_value()}, report)]
        checks += [_by_p("local ranks, corrected", c.local_p_values(), report)]
    return checks


def _softened(check: Check) -> Check:
    """What the correction mends is no failure."""
    return Check(
        check.name, "look" if check.status != "passed" else "passed", check.value, check.words
    )


def _of_efficiency(c: Calibration) -> list[Check]:
    if bool(c.ess.isnan().any()):
        words = "the program has no density: nothing corrects the guide"
        return [Check("efficiency of the guide", "look", float("nan"), words)]
    share = float(c.raw_efficiency.median())
    tenth = float(c.raw_efficiency.quantile(0.1))
    status: Status = "failed" if share < POOR else "look" if share < FAIR else "passed"
    advice = "" if status == "passed" else "; the guide is undertrained: train it longer"
    words = f"median {share:.0%} of its draws are effective, {tenth:.0%} in the worst tenth{advice}"
    poor = float((c.pareto_k > PARETO_K_LIMIT).double().mean())
    bad: Status = "failed" if poor > 0.1 else "look" if poor > 0.02 else "passed"
    return [
        Check("efficiency of the guide", status, share, words),
        Check("refinement", bad, poor, f"{poor:.1%} of the individuals keep a Pareto k above 0.7"),
    ]


def _of_influence(
    guide: AmortizedGuide, design: Design, c: Calibration, generator: Generator
) -> list[Check]:
    """Does every parameter move the simulated data, by common random numbers?"""
    moves = influence(guide, design, seed=fork_seed(generator))
    idle = [n for n, x in moves.items() if x < LEAST_MOVE]
    least = min(moves.values(), default=0.0)
    words = (
        "every parameter moves the data"
        if not idle
        else f"{', '.join(idle)} do not move the simulated data: does the program use them?"
    )
    checks = [Check("influence of parameters", "failed" if idle else "passed", least, words)]
    contraction = c.contraction()
    vague = [n for n, x in contraction.items() if x < LEAST_CONTRACTION and n not in idle]
    words = (
        "the data say something about every parameter"
        if not vague
        else f"the data of one individual say nothing about {', '.join(vague)}"
    )
    least = min(contraction.values())
    return [*checks, Check("contraction", "look" if vague else "passed", least, words)]


def _of_fit(fit: PopulationFit) -> list[Check]:
    k = fit.marginal.pareto_k
    poor = [i for i, x in zip(fit.cohort.ids, k.tolist(), strict=True) if not x <= PARETO_K_LIMIT]
    words = "all below 0.7" if not poor else f"above 0.7: {', '.join(poor[:8])}"
    bad: Status = "passed" if not poor else "failed" if len(poor) > 0.1 * len(k) else "look"
    error = fit.marginal.minus2ll_mc_error
    return [
        Check("convergence", "passed" if fit.converged else "failed", fit.num_rounds, fit.message),
        Check("Pareto k of the individuals", bad, float(k.max()), words),
        Check(
            "Monte Carlo error of -2LL",
            "passed" if error < 0.5 else "look",
            error,
            f"{error:.2f}; differences smaller than that mean nothing",
        ),
    ]


def _of_data(data: DataCheck) -> Check:
    share = len(data.outside) / len(data.ids)
    status: Status = "passed" if share == 0 else "failed" if share > 0.05 else "look"
    words = [w for why in data.reasons.values() for w in why]
    unlikely = bool(words) and all(w.startswith(HARDLY) for w in words)
    about: About = "model" if unlikely else "inference"
    return Check("data inside the training", status, share, data.verdict, about)


def _of_residuals(r: Residuals) -> list[Check]:
    """Mean, variance, distribution and trends of the npde, whose law under the model is known; and
    whether individual residuals spread more where predictions are higher (predictions of the
    population for trends: those of the individuals follow the data).
    """
    known = ~r.censored & r.npde.isfinite()
    z, time = r.npde[known].numpy(), r.times[known].numpy()
    if len(z) < LEAST_VALUES:
        return []
    tests = {
        "the mean": float(scipy.stats.ttest_1samp(z, 0.0).pvalue),
        "the variance": _variance_p_value(z),
        "the distribution": float(scipy.stats.kstest(z, "norm").pvalue),
        "the trend over time": _spearman(z, time),
    }
    pred, own, left = (x[known].numpy() for x in (r.population, r.individual, r.iwres))
    if np.isfinite(pred).all() and np.isfinite(left).all():
        tests["the trend over predictions"] = _spearman(z, pred)
        tests["the spread over predictions"] = _spearman(np.abs(left), own)
    advice = "the residual error model, or the structural model, does not fit"
    return [_by_p(f"residuals of {r.series}", tests, advice, "model")]


def _variance_p_value(z: np.ndarray) -> float:
    """Two-sided p-value of variance one."""
    statistic = ((z - z.mean()) ** 2).sum()
    below = float(scipy.stats.chi2.cdf(statistic, len(z) - 1))
    return 2 * min(below, 1 - below)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(y) == 0:
        return 1.0
    return float(scipy.stats.spearmanr(x, y).pvalue)
