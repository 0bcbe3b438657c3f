r"""Profile likelihoods: confidence intervals where the likelihood is not quadratic.

.. math:: \ell_p(z) = \max_{\Psi : \Psi_j = z} \log p(y \mid \Psi), \qquad
          \{ z : 2 (\ell_p(\hat z) - \ell_p(z)) \le \chi^2_{1, 0.95} \}

on the draws of the fit, so that a profile takes seconds. The bounds are found by Brent's
method; at every value the other parameters are maximised, starting from the nearest maximum. The
profile of a parameter that the data do not determine is followed over one prior scale: where it is
flat, its interval has no bounds.
"""

import math
from dataclasses import dataclass

import scipy.optimize
import scipy.special
import torch
from torch import Tensor

from ...errors import FitError
from ...numerics.maximization import Optimum, maximize
from ...runtime.arguments import check_is, check_number
from ...runtime.progress import count_step, counting_steps, showing_progress
from ...runtime.threads import threads_for
from ..levels.level_profiles import LevelMaxima
from ..levels.level_result import LevelFit
from ..likelihood.expanded_likelihood import ExpandedLikelihood
from ..posterior.cohort_size import check_size
from ..results.fit_result import PopulationFit


@dataclass(frozen=True)
class ProfileSettings:
    r"""How far and how accurately a profile is followed.

    Args:
        distances: Distances from the estimate at which a bound is looked for, in standard errors. A
            bound farther away is reported as infinite.
        flat_distances: The same for a parameter that the data do not determine, in units of its
            prior scale.
        tolerance: Accuracy of a bound, in standard errors.
        max_expansion_distance: The likelihood is expanded anew when a shared parameter is farther
            from where it was expanded, in standard errors.
        max_individual_distance: The same for an individual parameter, in posterior standard
            deviations.
        max_expansions: Most expansions for one maximum.
        max_iterations: Iterations of the optimiser for one maximum.
    """

    distances: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0)
    flat_distances: tuple[float, ...] = (0.5, 1.0)
    tolerance: float = 0.01
    max_expansion_distance: float = 0.2
    max_individual_distance: float = 0.3
    max_expansions: int = 4
    max_iterations: int = 50


PROFILE = ProfileSettings()


@dataclass(frozen=True, eq=False)
class ProfileLikelihood:
    r"""The profile of one parameter. Made by :func:`profile_likelihood`.

    Args:
        name: Label of the parameter.
        values: Values of the parameter at which the profile was evaluated, in the support,
            increasing, shape ``(point,)``.
        minus2ll: -2 log likelihood at these values minus the smallest one, same shape.
        lower: Lower bound of the interval; -inf, or the end of the support, if the profile does not
            reach the limit within five standard errors; for a parameter that the data do not
            determine, within one prior scale.
        upper: Upper bound; inf, or the end of the support, if the limit is not reached.
        level: Coverage of the interval.
    """

    name: str
    values: Tensor
    minus2ll: Tensor
    lower: float
    upper: float
    level: float

    def __repr__(self) -> str:
        interval = f"{self.lower:.4g} to {self.upper:.4g}"
        points = f"profile of {len(self.values)} points"
        return f"{self.name}: {100 * self.level:g} % interval {interval} ({points})"


def profile_likelihood(
    fit: PopulationFit | LevelFit, name: str, level: float = 0.95, *, progress: bool = True
) -> ProfileLikelihood:
    r"""Profile the likelihood of one population parameter.

    Args:
        fit: A fit by maximum likelihood, also one with a level above the individuals.
        name: Label of the parameter as in ``fit.summary()``: ``"sigma"``, ``"omega[1]"``.
        level: Coverage of the interval.
        progress: Show a progress bar of the points on standard error.

    Returns:
        The profile and its interval.

    Raises:
        FitError: There is no such parameter, it was fixed or held, the fit maximised the posterior
            density, or it has more than 20,000 individuals.

    References:
        Venzon and Moolgavkar (1988), A method for computing profile-likelihood-based confidence
        intervals.
    """
    fix = "pass what `fit_population` or `fit_levels` gives."
    check_is("fit", fit, (PopulationFit, LevelFit), fix, FitError)
    check_number("level", level, 0, 1, with_low=False, with_high=False, error=FitError)
    if isinstance(fit, PopulationFit):
        fit.check_likelihood("A profile likelihood")
        num_draws, free = fit.individuals.num_draws, fit.free
    else:
        num_draws, free = fit.num_draws, fit.estimated
    check_size(fit, "A profile likelihood")
    names = fit.structure.population_names
    if name not in names or not bool(free[names.index(name)]):
        known = [n for n, x in zip(names, free.tolist(), strict=True) if x]
        raise FitError(
            f"There is no parameter {name!r} that was estimated.",
            f"one of {known}.",
            "check the name; a parameter that was fixed, or held at a limit, has no profile.",
        )
    limit = float(scipy.special.chdtri(1, 1 - level))
    threads = threads_for(num_draws * fit.cohort.num_values)
    with threads, showing_progress(progress), counting_steps(f"profile of {name}", unit="point"):
        maxima = ExpandedMaxima(fit) if isinstance(fit, PopulationFit) else LevelMaxima(fit)
        profile = _Profile(fit, maxima, free, names.index(name))
        bounds = sorted(profile.bound(side, limit) for side in (-1.0, 1.0))
    points = sorted(profile.maxima.items())
    values = torch.tensor([profile.value(optimum.vector) for _, optimum in points])
    minus2ll = torch.tensor([2 * (profile.best.value - x.value) for _, x in points])
    order = values.argsort()
    return ProfileLikelihood(name, values[order], minus2ll[order], bounds[0], bounds[1], level)


class ExpandedMaxima:
    """Maxima of the likelihood of a fit over some coordinates."""

    def __init__(self, fit: PopulationFit) -> None:
        self.fit = fit
        self.likelihood = ExpandedLikelihood(fit.individuals, fit.search.scale)
        errors = fit.covariance.diagonal().clamp(min=0).sqrt()
        self.scale = torch.where(errors.isnan(), fit.search.scale, errors)

    def maximum(self, start: Tensor, free: Tensor) -> Optimum:
        """The maximum over some coordinates; an expanded likelihood is expanded anew there."""
        likelihood = self._expanded_near(start, self.likelihood)
        for _ in range(PROFILE.max_expansions):
            optimum = self._maximum_of(likelihood, start, free)
            expanded = self._expanded_near(optimum.vector, likelihood)
            if expanded is likelihood:
                break
            likelihood, start = expanded, optimum.vector
        return optimum

    def _maximum_of(self, likelihood: ExpandedLikelihood, start: Tensor, free: Tensor) -> Optimum:
        constrain = self.fit.structure.constrain_population

        def objective(x: Tensor) -> Tensor:
            return likelihood(constrain(start.masked_scatter(free, x))).sum()

        optimum = maximize(
            objective,
            start[free],
            scale=self.scale[free],
            max_iterations=PROFILE.max_iterations,
        )
        return optimum._replace(vector=start.masked_scatter(free, optimum.vector))

    def _expanded_near(self, vector: Tensor, likelihood: ExpandedLikelihood) -> ExpandedLikelihood:
        """The same likelihood if it was expanded near ``vector``, else a new one."""
        structure = self.fit.structure
        population = structure.constrain_population(vector)
        change = ((vector - likelihood.center) / self.scale)[
            structure.coordinates(structure.shared)
        ]
        farthest = float(change.abs().max()) if len(change) else 0.0
        is_near = farthest < PROFILE.max_expansion_distance
        moved = float(likelihood.distances(population)[0].max())
        if is_near and moved < PROFILE.max_individual_distance:
            return likelihood
        return ExpandedLikelihood(
            likelihood.individuals, likelihood.scale, population, likelihood.following
        )


class _Profile:
    """Maxima of the likelihood with one coordinate held, each started at the nearest one before."""

    def __init__(
        self,
        fit: PopulationFit | LevelFit,
        source: "ExpandedMaxima | LevelMaxima",
        free: Tensor,
        index: int,
    ) -> None:
        self.structure, self.source, self.index = fit.structure, source, index
        self.best = source.maximum(fit.vector, free)
        self.free = free & (torch.arange(len(fit.vector)) != index)
        is_flat = bool(fit.covariance.diagonal()[index].isnan())
        self.distances = PROFILE.flat_distances if is_flat else PROFILE.distances
        self.center = float(self.best.vector[index])
        self.unit = float(source.scale[index])
        self.maxima = {self.center: self.best}  # by value of the coordinate

    def log_likelihood(self, z: float) -> float:
        """The profile at a value of the coordinate."""
        if z not in self.maxima:
            nearest = min(self.maxima, key=lambda known: abs(known - z))
            start = self.maxima[nearest].vector.clone()
            start[self.index] = z
            self.maxima[z] = self.source.maximum(start, self.free)
            count_step()
        return self.maxima[z].value

    def bound(self, side: float, limit: float) -> float:
        """The parameter at which twice the fall of the profile reaches a limit, below (``side`` =
        -1) or above the estimate; else minus infinity or infinity.
        """

        def excess(z: float) -> float:
            return 2 * (self.best.value - self.log_likelihood(z)) - limit

        near = self.center
        for distance in self.distances:
            far = self.center + side * distance * self.unit
            if excess(far) > 0:
                tolerance = PROFILE.tolerance * self.unit
                root = scipy.optimize.brentq(excess, near, far, xtol=tolerance)
                self.log_likelihood(root)
                return self.value(self.maxima[root].vector)
            near = far
        return side * math.inf

    def value(self, vector: Tensor) -> float:
        """The parameter in its support; in unconstrained coordinates where the values of the site
        and its coordinates do not correspond, as for a covariance matrix.
        """
        label = self.structure.population_names[self.index]
        site = label.split("[")[0]
        values = self.structure.constrain_population(vector)[site].reshape(-1)
        names = [n for n in self.structure.population_names if n.split("[")[0] == site]
        if len(values) != len(names):
            return float(vector[self.index])
        return float(values[names.index(label)])
