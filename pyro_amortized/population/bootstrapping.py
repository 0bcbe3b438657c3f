r"""Bootstraps of a population fit.

Nonparametric: individuals are drawn with replacement, which only weights their log likelihoods,

.. math:: \Psi^{*} = \arg\max \sum_i m_i \log \hat p(y_i \mid \Psi), \qquad
          m \sim \text{Multinomial}(N, 1/N),

so that the draws of the fit are used and nothing is simulated. Parametric: cohorts are simulated
from the fit, and each is fitted with the same guide.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import scipy.special
import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..model import ModelStructure, Population
from ..numerics.cholesky import factored
from ..numerics.maximization import maximize
from ..runtime.arguments import check_count, check_is
from ..runtime.progress import count_step, counting_steps, showing_progress
from ..runtime.random_numbers import fork_seed, make_generator
from ..runtime.text_table import text_table
from ..runtime.user_warnings import warn_user
from ..sampling.individuals import MIN_DRAWS
from .estimation import fit_population
from .likelihood.likelihood_choice import differentiable_likelihood
from .likelihood.likelihood_interface import Likelihood
from .results.draws_text import draws_rows
from .results.fit_result import PopulationFit


@dataclass(frozen=True)
class BootstrapSettings:
    r"""Effort of a bootstrap.

    Args:
        max_iterations: Iterations of the optimiser for each replicate; it starts at the estimates.
        relative_step: Step of the differences that give the scores, in standard errors.
        max_named: Individuals that an error message names.
    """

    max_iterations: int = 50
    relative_step: float = 1e-3
    max_named: int = 5


BOOTSTRAP = BootstrapSettings()


@dataclass(frozen=True, eq=False)
class Bootstrap:
    r"""Estimates of bootstrapped cohorts. Made by :func:`bootstrap`.

    Args:
        fit: The fit.
        vectors: Unconstrained estimates, shape ``(replicate, population)``.
        num_failed: Number of replicates that did not converge; they are not among the estimates.
        kind: ``"nonparametric"`` or ``"parametric"``.
    """

    fit: PopulationFit
    vectors: Tensor
    num_failed: int
    kind: str

    def __repr__(self) -> str:
        title = f"{len(self.vectors)} replicates of a {self.kind} bootstrap"
        failed = f"; {self.num_failed} more did not converge" if self.num_failed else ""
        return f"{title}{failed}\n\n{text_table(draws_rows(self.fit.structure, self.vectors))}"

    @property
    def estimates(self) -> dict[str, Tensor]:
        """Estimates by site, in their support, shape ``(replicate, *site)``."""
        return self.fit.structure.constrain_population(self.vectors)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the unconstrained estimates, shape ``(population, population)``."""
        return torch.cov(self.vectors.T).reshape(self.vectors.shape[1], -1)

    @property
    def standard_errors(self) -> dict[str, Tensor]:
        """Standard deviations of the estimates by site, in the support."""
        return {name: x.std(0) for name, x in self.estimates.items()}

    def interval(
        self, level: float = 0.95, *, method: str = "basic"
    ) -> dict[str, tuple[Tensor, Tensor]]:
        r"""Intervals by site, in the support.

        Variances are underestimated with few individuals, and underestimated a second time in a
        resampled cohort. ``"basic"`` intervals reflect the replicates about the estimate, in
        unconstrained coordinates, and so correct for this bias; ``"percentile"`` intervals do not
        (decision 044). Nonparametric intervals are widened by the quantile of Student's t.

        Args:
            level: Probability of the interval.
            method: ``"basic"`` or ``"percentile"``.

        Returns:
            Lower and upper bound by site.

        Raises:
            FitError: The method is neither.

        References:
            Davison and Hinkley (1997), Bootstrap methods and their application, section 5.2.
            Hesterberg (2015), What teachers should know about the bootstrap.
        """
        if method not in ("basic", "percentile"):
            raise FitError(
                f"`method` is {method!r}.", '"basic" or "percentile".', "correct `method=`."
            )
        tail, num = (1 - level) / 2, len(self.fit.cohort)
        if self.kind == "nonparametric" and num > 2:
            quantile = float(scipy.special.stdtrit(num - 1, tail)) * math.sqrt(num / (num - 1))
            tail = float(scipy.special.ndtr(quantile))
        vectors = self.vectors if method == "percentile" else 2 * self.fit.vector - self.vectors
        sites = self.fit.structure.constrain_population(vectors)
        return {n: (x.quantile(tail, 0), x.quantile(1 - tail, 0)) for n, x in sites.items()}


def bootstrap(
    fit: PopulationFit,
    *,
    num_replicates: int = 200,
    parametric: bool = False,
    num_draws: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> Bootstrap:
    r"""Bootstrap a fit.

    Args:
        fit: A fit with standard errors.
        num_replicates: Number of cohorts.
        parametric: Simulate cohorts from the fit (seconds each) instead of drawing individuals
            with replacement (some tenths of a second each, after the likelihood was prepared).
        num_draws: Draws per individual that are used: of the draws of the fit, or for each
            simulated cohort.
        seed: Seed.
        progress: Show a progress bar on standard error.

    Returns:
        The estimates of all replicates that converged. If it is interrupted (Ctrl-C) after two or
        more, those that are done, with a warning.

    Raises:
        FitError: There are fewer than two replicates, the fit has no standard errors, or it
            maximised the posterior density.

    References:
        Thai et al. (2013), A comparison of bootstrap approaches for estimating uncertainty of
        parameters in linear mixed-effects models.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    fit.check_likelihood("A bootstrap")
    check_count("num_replicates", num_replicates, least=2, error=FitError)
    check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
    if not bool(fit.estimated.any()):
        raise FitError(
            "A bootstrap of a fit without standard errors.",
            "a fit that converged.",
            "improve the fit first (`fit.message`).",
        )
    generator = make_generator(seed)
    replicates: Iterator[tuple[Tensor, bool]] = (
        (_simulated(fit, num_draws, generator) for _ in range(num_replicates))
        if parametric
        else _resampled(fit, num_replicates, num_draws, generator)
    )
    with showing_progress(progress), counting_steps("bootstrap", num_replicates, "replicate"):
        done = _completed(replicates, num_replicates)
    vectors = [vector for vector, converged in done if converged]
    if len(vectors) < 2:
        raise FitError(
            f"{len(done) - len(vectors)} of {len(done)} replicates did not converge.",
            "two or more that do.",
            "look at `fit.message`; simplify the model.",
        )
    kind = "parametric" if parametric else "nonparametric"
    return Bootstrap(fit, torch.stack(vectors), len(done) - len(vectors), kind)


def _completed(
    replicates: Iterator[tuple[Tensor, bool]], num_replicates: int
) -> list[tuple[Tensor, bool]]:
    """The replicates, or those that are done when the user interrupts."""
    done: list[tuple[Tensor, bool]] = []
    try:
        for replicate in replicates:
            done.append(replicate)
            count_step()
    except KeyboardInterrupt:
        if len(done) < 2:
            raise
        warn_user(
            f"The bootstrap was interrupted after {len(done)} of {num_replicates} replicates."
        )
    return done


def _resampled(
    fit: PopulationFit, num_replicates: int, num_draws: int, generator: Generator
) -> Iterator[tuple[Tensor, bool]]:
    """Estimates of cohorts of individuals drawn with replacement, and whether they converged.

    The search starts at a Newton step from the common centre, in coordinates in which the
    curvature is about one.
    """
    structure, num, free = fit.structure, len(fit.cohort), fit.estimated
    likelihood = differentiable_likelihood(
        fit.individuals.some(num_draws, generator), fit.search.scale
    )
    scale = factored(fit.covariance[free][:, free])

    def maximum(counts: Tensor, start: Tensor) -> tuple[Tensor, bool]:
        def objective(x: Tensor) -> Tensor:
            vector = fit.vector.masked_scatter(free, x)
            return counts @ likelihood(structure.constrain_population(vector))

        optimum = maximize(
            objective, start[free], scale=scale, max_iterations=BOOTSTRAP.max_iterations
        )
        return fit.vector.masked_scatter(free, optimum.vector), optimum.converged

    # The maximum on the draws that are used, from which the replicates differ.
    center, _ = maximum(torch.ones(num, dtype=torch.float64), fit.vector)
    steps = _scores(likelihood, structure, center, free, scale) @ scale.T
    for _ in range(num_replicates):
        picked = torch.randint(num, (num,), generator=generator)
        counts = torch.bincount(picked, minlength=num).double()
        step = torch.zeros_like(center).masked_scatter(free, (counts - 1) @ steps)
        vector, converged = maximum(counts, center + step)
        yield fit.vector + vector - center, converged


def _scores(
    likelihood: Likelihood, structure: ModelStructure, center: Tensor, free: Tensor, scale: Tensor
) -> Tensor:
    """Derivatives of log p(y_i | Psi) along the columns of ``scale``, shape ``(individual,
    column)``, from differences of the likelihood that the replicates maximise.
    """
    columns = []
    with torch.no_grad():
        for column in BOOTSTRAP.relative_step * scale.T:
            shift = torch.zeros_like(center).masked_scatter(free, column)
            ends = [
                likelihood(structure.constrain_population(center + side * shift))
                for side in (1.0, -1.0)
            ]
            columns.append((ends[0] - ends[1]) / (2 * BOOTSTRAP.relative_step))
    return torch.stack(columns, 1)


def _simulated(fit: PopulationFit, num_draws: int, generator: Generator) -> tuple[Tensor, bool]:
    """The estimate of one simulated cohort, and whether it converged."""
    cohort = simulate_population(fit.structure, fit.cohort, fit.estimates, generator)
    held = {name: fit.estimates[name] for name in fit.fixed}
    replicate = fit_population(
        fit.model,
        cohort,
        guide=fit.guide,
        start=fit.estimates,
        fixed=held,
        num_draws=num_draws,
        estimator=fit.structure.estimator,
        retrain=False,
        seed=fork_seed(generator),
        progress=False,
    )
    return replicate.vector, replicate.converged


def simulate_population(
    structure: ModelStructure, design: Cohort, population: Population, seed: int | Generator
) -> Cohort:
    r"""New individuals and observations from a population.

    Args:
        structure: Structure of the model.
        design: Times, doses, covariates and which values are recorded; the values are ignored.
        population: Values of all population sites.
        seed: Seed or generator.

    Returns:
        The design with simulated values.

    Raises:
        FitError: A simulation is not finite.
        ModelError: A population value is missing or outside its support.
    """
    generator, population = make_generator(seed), structure.check_population(population)
    simulated, failed = structure.simulate_cohort(design, population, generator)
    if bool(failed.any()):
        failures = failed.nonzero()[: BOOTSTRAP.max_named, 0].tolist()
        named = [design.ids[i] for i in failures]
        raise FitError(
            f"The simulations of {int(failed.sum())} individuals ({named}) are not finite.",
            "a population under which the model can be simulated.",
            "look for estimates that are far from what is plausible, and simulate at others.",
        )
    return simulated
