r"""A fitted population model: estimates, standard errors, criteria.

The curvature I of the marginal likelihood gives the covariance of the estimates,
:math:`I^{-1}`. With the scores :math:`s_i` of the individuals, the sandwich

.. math:: I^{-1} \Big(\sum_i s_i s_i^\top\Big) I^{-1}

is also valid if the model is wrong.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...errors import FitError
from ...guide import AmortizedGuide
from ...model import Estimator, Model, ModelStructure
from ...numerics.laplace import delta_method
from ...runtime.text_table import text_table
from ...sampling.individuals import IndividualPosteriors
from ..likelihood.large_cohorts.individual_blocks import summary_by_blocks
from ..likelihood.likelihood_choice import is_large, make_likelihood
from ..likelihood.likelihood_estimate import MarginalLikelihood
from ..likelihood.likelihood_interface import WeightedLikelihood
from ..search.maximum_search import Criterion, Search
from .conditional_shrinkage import eta_shrinkage
from .guide_advice import guide_advice
from .summary_table import FitSummary


@dataclass(frozen=True)
class ResultSettings:
    r"""Constants of the results.

    Args:
        relative_step: Step of the differences of the scores, in the scale of the search.
    """

    relative_step: float = 1e-3


RESULT = ResultSettings()


class Bic(NamedTuple):
    """The Bayesian information criterion in both conventions: with the logarithm of the number of
    individuals, or of observations.
    """

    individuals: float
    observations: float


@dataclass(frozen=True, eq=False)
class PopulationFit:
    r"""A fitted population model. Made by :func:`fit_population`.

    Args:
        model: The population model.
        guide: The guide, or None.
        cohort: The data.
        structure: Structure of the model.
        criterion: ``"maximum likelihood"``, ``"maximum a posteriori"`` or ``"posterior mode"``.
        vector: Estimates in unconstrained coordinates, shape ``(population,)``.
        covariance: Their covariance from the observed information, shape ``(population,
            population)``; NaN for parameters that were fixed or held, or that the data do not
            determine.
        monte_carlo_errors: Monte Carlo standard errors of the unconstrained estimates, with the
            distance from the maximum that the optimiser left, shape ``(population,)``; NaN as in
            ``covariance``.
        standard_error_errors: Monte Carlo standard errors of the standard errors, as parts of
            these, same shape; NaN as in ``covariance``, and for a cohort of thousands.
        individuals: Corrected draws of every individual at the estimates. They are new draws, on
            which nothing was fitted.
        marginal: Log p(y_i | Psi) at the estimates, on these draws.
        converged: Whether the optimiser converged, the last round had nothing to gain, the
            curvature is that of a maximum, and enough draws are effective.
        message: How the fit ended, in words.
        num_rounds: Rounds of drawing and maximising.
        seconds: Wall time of the fit, further training of the guide included.
        search: What the rounds had in common.
        fixed: Names of the population sites that were not estimated.
        undetermined: Labels of the parameters, as in the summary, of which the data determine only
            a combination, or nothing.
    """

    model: Model
    guide: AmortizedGuide | None
    cohort: Cohort
    structure: ModelStructure
    criterion: Criterion
    vector: Tensor
    covariance: Tensor
    monte_carlo_errors: Tensor
    standard_error_errors: Tensor
    individuals: IndividualPosteriors
    marginal: MarginalLikelihood
    converged: bool
    message: str
    num_rounds: int
    seconds: float
    search: Search
    fixed: tuple[str, ...] = ()
    undetermined: tuple[str, ...] = ()

    def __repr__(self) -> str:
        summary = self.summary()
        table = text_table(summary.parameter_rows)
        return f"PopulationFit: {summary.short}\n{summary.message}\n\n{table}"

    def _repr_html_(self) -> str:
        """The estimates as a table, for notebooks."""
        return self.summary()._repr_html_()

    @property
    def advice(self) -> str:
        """Whether training a guide pays for this fit (page *When does training pay?*)."""
        method = self.individuals.method
        return guide_advice(self.estimator, self.guide is not None, method, self.seconds)

    @property
    def trained_guide(self) -> AmortizedGuide:
        r"""The guide of the fit.

        Raises:
            FitError: The fit was made without one.
        """
        if self.guide is None:
            raise FitError(
                "The fit was made without a guide.",
                "a fit with a guide.",
                "train one, `guide = train(model, cohort)`, and pass `guide=guide` to the fit.",
            )
        return self.guide

    @property
    def estimates(self) -> dict[str, Tensor]:
        """Estimates by site, in their support."""
        return self.structure.constrain_population(self.vector)

    @property
    def standard_errors(self) -> dict[str, Tensor]:
        """Standard errors by site (delta method), in the support."""
        return {name: self.derived(name)[1] for name in self.structure.population}

    @property
    def robust_standard_errors(self) -> dict[str, Tensor]:
        """Standard errors by site from :attr:`robust_covariance`, in the support."""
        return {
            name: delta_method(self._site(name), self.vector, self.robust_covariance)[1]
            for name in self.structure.population
        }

    @property
    def estimator(self) -> Estimator:
        """``"corrected"`` by the density of the model, or ``"likelihood-free"``: not corrected, and
        -2LL is known only up to a constant.
        """
        return self.structure.estimator

    def _site(self, name: str) -> Callable[[Tensor], Tensor]:
        return lambda z: self.structure.constrain_population(z)[name]

    @property
    def estimated(self) -> Tensor:
        """Which unconstrained coordinates have a covariance, shape ``(population,)``. The others
        were fixed, belong to a standard deviation that cannot be distinguished from zero, or are
        not determined by the data.
        """
        return ~self.covariance.diagonal().isnan()

    @property
    def free(self) -> Tensor:
        """Coordinates that have a covariance or are not determined, shape ``(population,)``."""
        names = self.structure.population_names
        return self.estimated | torch.tensor([name in self.undetermined for name in names])

    @functools.cached_property
    def likelihood(self) -> WeightedLikelihood:
        """Log p(y_i | Psi) on the draws of the fit, as a function of the population."""
        return make_likelihood(self.individuals, self.search.scale)

    def log_likelihoods(self, vector: Tensor) -> Tensor:
        """Log p(y_i | Psi) at unconstrained parameters near the estimates, shape ``(individual,)``,
        differentiable.
        """
        return self.likelihood(self.structure.constrain_population(vector))

    @functools.cached_property
    def scores(self) -> Tensor:
        """Derivatives of log p(y_i | Psi) with respect to the unconstrained parameters at the
        estimates, shape ``(individual, population)``.
        """
        if is_large(self.structure, self.cohort):
            return summary_by_blocks(self.individuals, self.search.scale).summary.following.scores
        steps = RESULT.relative_step * self.search.scale
        with torch.no_grad():
            columns = [
                (
                    self.log_likelihoods(self.vector + shift)
                    - self.log_likelihoods(self.vector - shift)
                )
                / (2 * shift.sum())
                for shift in torch.diag(steps)
            ]
        return torch.stack(columns, 1)

    @functools.cached_property
    def robust_covariance(self) -> Tensor:
        r"""Covariance of the unconstrained estimates by the sandwich, shape ``(population,
        population)``; NaN as in ``covariance``.

        References:
            White (1982), Maximum likelihood estimation of misspecified models.
        """
        known = self.estimated
        inverse = self.covariance[known][:, known]
        scores = self.scores[:, known]
        scores = scores - scores.mean(0)
        result = torch.full_like(self.covariance, torch.nan)
        sandwich = inverse @ (scores.T @ scores) @ inverse
        return result.masked_scatter(known.unsqueeze(0) & known.unsqueeze(1), sandwich)

    def check_likelihood(self, what: str) -> None:
        r"""Raise an error unless the fit maximised the likelihood alone.

        Args:
            what: The method that needs such a fit, for the message.

        Raises:
            FitError: The fit maximised the posterior density.
        """
        if self.criterion != "maximum likelihood":
            raise FitError(
                f"{what} of a fit by maximum a posteriori.",
                "a fit by maximum likelihood.",
                "fit without `maximum_a_posteriori=True`, or use `sample_population`, whose draws "
                "take account of the prior.",
            )

    def derived(
        self, quantity: str | Callable[[Mapping[str, Tensor]], Tensor]
    ) -> tuple[Tensor, Tensor]:
        r"""Estimate and standard error of a site, or of any function of the population parameters,
        by the delta method.

        Args:
            quantity: Name of a site; or a differentiable function of the population parameters by
                name, in their support.

        Returns:
            The value and its standard error, shape of the value.

        Raises:
            FitError: There is no such site.

        Example:
            The half-life of the typical individual, from logarithms of clearance and volume:
            ``fit.derived(lambda p: 0.693 * (p["typical"][1] - p["typical"][0]).exp())``.
        """
        if callable(quantity):
            function = quantity
            return delta_method(
                lambda z: function(self.structure.constrain_population(z)),
                self.vector,
                self.covariance,
            )
        if quantity not in self.structure.population:
            raise FitError(
                f"There is no population site {quantity!r}.",
                f"one of {list(self.structure.population)}, or a function of the parameters.",
                "pass for instance `lambda p: p['typical'][0].exp()`.",
            )
        return delta_method(self._site(quantity), self.vector, self.covariance)

    @property
    def num_parameters(self) -> int:
        """Number of free population parameters."""
        sites = self.structure.population.items()
        return sum(s.num_unconstrained for name, s in sites if name not in self.fixed)

    @property
    def minus2ll(self) -> float:
        """-2 log marginal likelihood at the estimates, on new draws, with all constants."""
        return self.marginal.minus2ll

    @property
    def minus2ll_mc_error(self) -> float:
        """Monte Carlo standard error of it."""
        return self.marginal.minus2ll_mc_error

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2LL + 2 P."""
        return self.minus2ll + 2 * self.num_parameters

    @property
    def bic(self) -> Bic:
        """-2LL + P log(number of individuals), and -2LL + P log(number of observations)."""
        counts = (len(self.cohort), self.structure.num_observations(self.cohort))
        return Bic(*(self.minus2ll + self.num_parameters * math.log(n) for n in counts))

    def shrinkage(self, num_draws: int = 2000, seed: int = 0) -> dict[str, float]:
        r"""Eta shrinkage of every individual parameter,
        :math:`1 - \mathrm{sd}_i(\hat\eta_i) / \omega`.

        :math:`\hat\eta_i` is the conditional mean of a parameter of an individual minus its mean
        under the population, and :math:`\omega` its standard deviation under the population, both
        in unconstrained coordinates.

        Args:
            num_draws: Draws of each individual from the population, for its means and standard
                deviations; fewer for more than 5,000 individuals.
            seed: Seed of these draws.

        Returns:
            Shrinkage by name of the individual parameter; NaN with one individual.

        References:
            Savic and Karlsson (2009), Importance of shrinkage in empirical Bayes estimates.
        """
        return eta_shrinkage(self.individuals, num_draws, seed)

    def save(self, path: str | Path) -> None:
        r"""Write the fit to a folder: data, draws and estimates in ``fit.safetensors``, the guide
        in the folder ``guide``; nothing is pickled. :func:`~pyro_amortized.load_fit` reads it.

        Args:
            path: The folder; it is created if it does not exist.
        """
        from .fit_files import save_fit

        save_fit(self, path)

    def summary(self) -> FitSummary:
        """The fit as a table: ``print(fit.summary())``."""
        from .fit_summary import summarized

        return summarized(self)
