r"""Profile likelihoods: intervals that follow the likelihood where it is not quadratic.

.. math:: \ell_p(z) = \max_{\Psi : \Psi_j = z} \log p(y \mid \Psi), \qquad
          \{ z : 2 (\ell_p(\hat z) - \ell_p(z)) \le \chi^2_{1, 0.95} \}

on the draws of the fit, so that a profile takes seconds.
"""

from dataclasses import dataclass

import scipy.optimize
import scipy.stats
import torch
from torch import Tensor

from ..errors import FitError
from ..numerics.maximization import Optimum, maximize
from ..runtime.arguments import check_is, check_number
from .expanded_likelihood import ExpandedLikelihood
from .fit_result import PopulationFit
from .likelihood_choice import Likelihood

FARTHEST = 5.0  # standard errors
NEAR, MAX_EXPANSIONS = 0.2, 4  # standard errors of the shared parameters


@dataclass(frozen=True, eq=False)
class ProfileLikelihood:
    r"""The profile of one parameter. Made by :func:`profile_likelihood`.

    Args:
        name: Label of the parameter.
        values: Where the profile was evaluated, in the support, increasing, shape ``(point,)``.
        minus2ll: -2 log likelihood there, relative to the smallest.
        lower: Lower bound of the interval; -inf (or the end of the support) where the profile stays
            below the limit as far as it was followed.
        upper: Upper bound.
        level: Coverage of the interval.
    """

    name: str
    values: Tensor
    minus2ll: Tensor
    lower: float
    upper: float
    level: float


def profile_likelihood(fit: PopulationFit, name: str, level: float = 0.95) -> ProfileLikelihood:
    r"""Profile the likelihood of one population parameter.

    Args:
        fit: A fit by maximum likelihood.
        name: Label of the parameter as in ``fit.summary()``: ``"sigma"``, ``"omega[1]"``.
        level: Coverage of the interval.

    Raises:
        FitError: There is no such parameter, it has no standard error to begin with, or the fit
            maximised the posterior density.

    References:
        Venzon and Moolgavkar (1988), A method for computing profile-likelihood-based confidence
        intervals.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    check_number("level", level, 0, 1, with_low=False, with_high=False, error=FitError)
    fit.check_likelihood("A profile likelihood")
    names = fit.structure.population_names
    if name not in names or not bool(fit.estimated[names.index(name)]):
        known = [n for n, x in zip(names, fit.estimated.tolist(), strict=True) if x]
        raise FitError(
            f"There is no parameter {name!r} with a standard error.",
            f"one of {known}.",
            "check the name; a parameter that is fixed or undetermined has no profile.",
        )
    walk = _Walk(fit, names.index(name))
    limit = float(scipy.stats.chi2.ppf(level, 1))
    ends = [walk.crossing(side, limit) for side in (-1.0, 1.0)]
    points = sorted(walk.seen.items())
    values = torch.tensor([walk.value(vector) for _, (_, vector) in points])
    heights = torch.tensor([2 * (walk.top - height) for _, (height, _) in points])
    order = values.argsort()
    bounds = sorted(walk.value(end[0]) if end[1] else end[2] for end in ends)
    return ProfileLikelihood(name, values[order], heights[order], bounds[0], bounds[1], level)


class _Walk:
    """Maxima with one coordinate held, each from the one before."""

    def __init__(self, fit: PopulationFit, index: int) -> None:
        self.fit, self.index = fit, index
        self.scale = fit.covariance.diagonal().clamp(min=0).sqrt().nan_to_num(1.0)
        self.free = fit.estimated.clone()
        found = self._maximum(fit.vector)
        self.best, self.top = found.vector, found.value
        self.free[index] = False
        self.center = float(self.best[index])
        self.unit = float(self.scale[index])
        self.seen = {self.center: (self.top, self.best)}

    def _maximum(self, start: Tensor) -> Optimum:
        """The maximum over what is free; an expanded likelihood is expanded anew there."""
        likelihood = self._expanded_at(start, self.fit.likelihood)
        for _ in range(MAX_EXPANSIONS):
            found = self._climb(likelihood, start)
            again = self._expanded_at(found.vector, likelihood)
            if again is likelihood:
                break
            likelihood, start = again, found.vector
        return found

    def _climb(self, likelihood: Likelihood, start: Tensor) -> Optimum:
        free, constrain = self.free, self.fit.structure.constrain_population

        def objective(x: Tensor) -> Tensor:
            return likelihood(constrain(start.masked_scatter(free, x))).sum()

        found = maximize(objective, start[free], scale=self.scale[free], max_iterations=50)
        return found._replace(vector=start.masked_scatter(free, found.vector))

    def _expanded_at(self, vector: Tensor, likelihood: Likelihood) -> Likelihood:
        """The same where it is exact, or was expanded near."""
        structure = self.fit.structure
        if not (isinstance(likelihood, ExpandedLikelihood) and structure.shared):
            return likelihood
        which = structure.coordinates(structure.shared)
        apart = (vector[which] - likelihood.center) / self.scale[which]
        if float(apart.abs().max()) < NEAR:
            return likelihood
        about = structure.constrain_population(vector)
        return ExpandedLikelihood(likelihood.individuals, likelihood.scale, about)

    def height(self, z: float) -> float:
        """The profile at a value of the coordinate."""
        if z not in self.seen:
            nearest = min(self.seen, key=lambda known: abs(known - z))
            start = self.seen[nearest][1].clone()
            start[self.index] = z
            found = self._maximum(start)
            self.seen[z] = found.value, found.vector
        return self.seen[z][0]

    def crossing(self, side: float, limit: float) -> tuple[Tensor, bool, float]:
        """Where the profile has fallen by the limit; whether it does; else infinity."""

        def above(z: float) -> float:
            return 2 * (self.top - self.height(z)) - limit

        near = self.center
        for distance in (1.0, 2.0, 3.0, FARTHEST):
            far = self.center + side * distance * self.unit
            if above(far) > 0:
                root = scipy.optimize.brentq(above, near, far, xtol=0.01 * self.unit)
                self.height(root)
                return self.seen[root][1], True, side * float("inf")
            near = far
        return self.best, False, side * float("inf")

    def value(self, vector: Tensor) -> float:
        """The parameter in its support, where it has one value per coordinate."""
        label = self.fit.structure.population_names[self.index]
        site = label.split("[")[0]
        found = self.fit.structure.constrain_population(vector)[site].reshape(-1)
        names = [n for n in self.fit.structure.population_names if n.split("[")[0] == site]
        if len(found) != len(names):
            return float(vector[self.index])
        return float(found[names.index(label)])
