r"""The amortized posterior as a Pyro guide, saved and loaded.

:class:`AmortizedGuide` is an ``AutoGuide`` for the user's model. It samples the population sites
from a normal distribution in unconstrained coordinates (which SVI learns, and
:meth:`AmortizedGuide.at` sets), and then the individual sites from the amortized posterior given
the data and the shared parameters. The networks do not change, and are not in Pyro's parameter
store.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import constraints

from ..cohort import Cohort
from ..errors import GuideError
from ..missing.training_patterns import TrainingPatterns
from ..model import Model, ModelStructure, Population
from ..model.individual_priors import individual_priors
from ..networks.conditional_flow import FlowDistribution
from ..numerics.broadcasting import concatenated
from .amortized_posterior import AmortizedPosterior
from .files.guide_folder import GuideParts, write_guide
from .individual_part import log_prob_of_values, priors_of_draws, sample_individual_part
from .newton_posterior import SharpenedPosterior
from .population_part import PopulationPart, median_of_population, sample_population_part
from .sharpened_distribution import SharpenedDistribution
from .training_distributions import TrainingDistribution
from .training_history import TrainingHistory

# Draws for medians and quantiles: odd numbers, so that the median is one of the draws.
NUM_MEDIAN, NUM_QUANTILES = 501, 2001


class AmortizedGuide(AutoGuide):  # type: ignore[misc]
    r"""A trained guide for a mixed-effects model. Made by :func:`~pyro_amortized.train`.

    Args:
        model: The model.
        structure: Its structure.
        posterior: The amortized posterior, float64; its weights get no gradients.
        training_distribution: Distribution of the parameters that it was trained on.
        history: How it was trained.
        patterns: Patterns of missing values that it was trained on.
    """

    def __init__(
        self,
        model: Model,
        structure: ModelStructure,
        posterior: AmortizedPosterior | SharpenedPosterior,
        training_distribution: TrainingDistribution,
        history: TrainingHistory,
        patterns: TrainingPatterns = TrainingPatterns(),
    ) -> None:
        super().__init__(model)
        # Both in tuples, so that Pyro registers no weights and renames nothing of the user's guide.
        self._networks = (posterior.eval().requires_grad_(False),)
        self._population_part: tuple[PopulationPart | None] = (None,)
        self.tuned = False
        self.structure = structure
        self.training_distribution = training_distribution
        self.history = history
        self.patterns = patterns
        location = structure.unconstrain_population(structure.initial_population())
        self.loc = PyroParam(location, constraints.real, event_dim=1)
        self.scale_tril = PyroParam(
            torch.eye(len(location), dtype=torch.float64) / 2, constraints.lower_cholesky
        )

    def __repr__(self) -> str:
        return f"AmortizedGuide of {', '.join(self.structure.latent_names)}; {self.history.words}"

    def __reduce__(self) -> tuple[Any, ...]:
        # AutoGuide.__getstate__ deletes the model, also from the guide that is pickled.
        return assembled_guide, (self.model, self._parts, self._part, self.tuned)

    @property
    def posterior(self) -> AmortizedPosterior | SharpenedPosterior:
        """Encoder, summary network and flow; in a sharpened guide with Newton steps."""
        return self._networks[0]

    @property
    def networks(self) -> AmortizedPosterior:
        """The networks that read the data; in a sharpened guide those before the Newton steps."""
        posterior = self.posterior
        return posterior if isinstance(posterior, AmortizedPosterior) else posterior.first

    def at(self, location: Tensor, scale_tril: Tensor) -> "AmortizedGuide":
        r"""The same guide with another population part.

        Args:
            location: Mean of the unconstrained population parameters, shape ``(population,)``, for
                instance ``fit.vector``.
            scale_tril: Cholesky factor of their covariance, for instance of ``fit.covariance``.
        """
        other = self._copy(self.posterior, None, self.tuned)
        other.loc = location.detach().clone().double()
        other.scale_tril = scale_tril.detach().clone().double()
        return other

    def with_population(self, population: PopulationPart) -> "AmortizedGuide":
        r"""The same guide with another guide for the population sites.

        Args:
            population: Any Pyro guide that samples the population sites and returns their values by
                name, as Pyro's automatic guides do: for instance
                ``AutoMultivariateNormal(poutine.block(model, expose=["typical", "omega"]))``.

        Raises:
            GuideError: When called: it does not return all population sites.
        """
        return self._copy(self.posterior, population, self.tuned)

    def trainable(self) -> "AmortizedGuide":
        r"""A copy whose networks are in Pyro's parameter store (under ``amortized_posterior``), so
        that ``SVI`` trains them further on the data themselves. Use a small learning rate, for
        instance 1e-4. Draws of the result are corrected by weights, as those of any guide.
        """
        return self._copy(copy.deepcopy(self.posterior), self._part, True)

    @property
    def _part(self) -> PopulationPart | None:
        return self._population_part[0]

    def _copy(
        self,
        posterior: AmortizedPosterior | SharpenedPosterior,
        population: PopulationPart | None,
        tuned: bool,
    ) -> "AmortizedGuide":
        parts = (posterior, self.training_distribution, self.history, self.patterns)
        other = AmortizedGuide(self.model, self.structure, *parts)
        other.posterior.requires_grad_(tuned)
        other._population_part, other.tuned = (population,), tuned
        other.loc, other.scale_tril = self.loc.detach().clone(), self.scale_tril.detach().clone()
        return other

    # The individual part.

    def shared_vector(self, population: Population) -> Tensor:
        r"""Unconstrained shared parameters that the networks are conditioned on, shape ``(*,
        shared)``.

        A shared parameter that the population does not have (another residual error model) is
        replaced by the median of its training distribution. The guide is then less exact; its
        draws are still corrected by weights.

        Args:
            population: Population parameters by name, shapes ``(*, *site)``.
        """
        sites = [self.structure.population[name] for name in self.structure.shared]
        if not sites:
            return torch.zeros(0, dtype=torch.float64)
        median = self.training_distribution.shared.draws.median(0).values.double()
        pieces = list(median.split([site.num_unconstrained for site in sites]))
        for j, site in enumerate(sites):
            value = population.get(site.name)
            if value is not None and value.shape[value.dim() - len(site.shape) :] == site.shape:
                pieces[j] = site.unconstrain(value.double())
        return concatenated(pieces)

    def individual_posterior(
        self, cohort: Cohort, population: Population, structure: ModelStructure | None = None
    ) -> FlowDistribution | SharpenedDistribution:
        r"""The posterior of every individual in unconstrained coordinates, before correction.

        Args:
            cohort: N individuals.
            population: Population parameters by name, for instance ``fit.estimates``.
            structure: Structure of the model that they belong to. Default: that of the guide.

        Returns:
            A distribution with batch shape ``(individual,)`` and event shape ``(latent,)``.

        Raises:
            ModelError: A population parameter is missing or outside its support.
        """
        structure, priors = structure or self.structure, None
        if self.posterior.prior_features is not None:
            values = structure.check_population(population)
            priors = individual_priors(structure, cohort, values)
        return self.posterior.condition(cohort, self.shared_vector(population), priors)

    @torch.no_grad()
    def log_prob(self, cohort: Cohort, values: Population, population: Population) -> Tensor:
        r"""Log density of the guide's own distribution of the individual parameters, before
        correction.

        Args:
            cohort: N individuals.
            values: Values of all individual sites by name, in the layout and the units of the
                model, as one draw of ``Predictive`` or ``guide(cohort)`` gives them.
            population: Population parameters by name, for instance ``fit.estimates``.

        Returns:
            Shape ``(individual,)``, a density of the values themselves: the Jacobian of the
            transformation to unconstrained coordinates is included.

        Raises:
            GuideError: The value of a site is missing.
            ModelError: A population parameter is missing or outside its support.
        """
        posterior = self.individual_posterior(cohort, population)
        return log_prob_of_values(self.structure, posterior, cohort, values, population)

    # The Pyro guide.

    def forward(self, cohort: Cohort, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all latent sites of the model; values by name."""
        if self.master is not None:
            raise GuideError(
                "The AmortizedGuide is part of an AutoGuideList.",
                "an AmortizedGuide by itself: it samples the population sites too.",
                "pass it to SVI or Importance itself; `guide.with_population(AutoNormal(...))` "
                "puts any guide of the population in it, `guide.at` a normal distribution.",
            )
        population = sample_population_part(
            self.structure, cohort, self._part or (self.loc, self.scale_tril)
        )
        if self.tuned:
            pyro.module("amortized_posterior", self.posterior)
        priors = None
        if self.posterior.prior_features is not None:
            priors = priors_of_draws(self.structure, cohort, population)
        context = (self.shared_vector(population), priors)
        individual = sample_individual_part(
            self.structure, cohort, population, self.posterior, *context
        )
        params = [name for name, site in self.structure.population.items() if site.is_param]
        return {name: x for name, x in population.items() if name not in params} | individual

    @torch.no_grad()
    def median(self, cohort: Cohort, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Medians of 501 draws of the individual sites, by name; population sites at the median of
        their normal distribution.
        """
        population = median_of_population(self.structure, cohort, self._part or self.loc.detach())
        posterior = self.individual_posterior(cohort, population)
        middle = posterior.rsample(torch.Size([NUM_MEDIAN])).median(0).values
        values, _ = self.structure.constrain(cohort, middle, population)
        return {
            n: x for n, x in population.items() if not self.structure.population[n].is_param
        } | values

    @torch.no_grad()
    def sample_posterior(
        self, cohort: Cohort, *args: Any, num_samples: int = 1, **kwargs: Any
    ) -> dict[str, Tensor]:
        r"""Draws of all latent sites at once, by name; each draw has its own population.

        The draws of the individual parameters are those of the networks, before correction; for
        corrected ones see :class:`~pyro_amortized.population.amortized_mcmc.AmortizedMCMC`. The
        random numbers are those of Pyro's generator, as in any guide.

        Args:
            cohort: N individuals.
            *args: Further arguments of the model; ignored.
            **kwargs: Further arguments of the model; ignored.
            num_samples: Number of draws.

        Returns:
            Shapes ``(num_samples, *site)``.

        Raises:
            GuideError: ``num_samples`` is less than one.
        """
        if num_samples < 1:
            raise GuideError(
                f"`num_samples` is {num_samples}.", "at least 1.", "pass a positive `num_samples=`."
            )
        dims = [dim for site in self.structure.individual.values() for *_, dim in site.plates]
        dims += [site.dim for site in self.structure.individual.values()]
        one = self(cohort)
        with pyro.plate("_draws", num_samples, dim=min(dims) - 1):
            draws = self(cohort)
        return {name: draws[name].reshape(num_samples, *x.shape) for name, x in one.items()}

    def quantiles(
        self, quantiles: Sequence[float] | Tensor, cohort: Cohort, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        r"""Quantiles of 2,001 draws of every latent site, by name.

        Args:
            quantiles: Levels between zero and one, as of Pyro's ``AutoNormal.quantiles``.
            cohort: N individuals.
            *args: Further arguments of the model; ignored.
            **kwargs: Further arguments of the model; ignored.

        Returns:
            Shapes ``(quantile, *site)``.

        Raises:
            GuideError: A level lies outside [0, 1].
        """
        levels = torch.as_tensor(quantiles, dtype=torch.float64)
        if not bool(((levels >= 0) & (levels <= 1)).all()):
            raise GuideError(
                f"The quantiles are {levels.tolist()}.",
                "levels between 0 and 1.",
                "pass for instance `guide.quantiles([0.05, 0.5, 0.95], cohort)`.",
            )
        draws = self.sample_posterior(cohort, num_samples=NUM_QUANTILES)
        return {n: x.quantile(levels.to(x.dtype), dim=0) for n, x in draws.items()}

    # Files.

    def save(self, path: str | Path) -> None:
        r"""Write the guide to a folder: ``weights.safetensors`` and ``guide.json``; nothing is
        pickled.

        Args:
            path: The folder; it is made if it is not there.
        """
        write_guide(Path(path), self._parts)

    @property
    def _parts(self) -> GuideParts:
        return GuideParts(
            self.structure,
            self.posterior,
            self.training_distribution,
            self.history,
            self.patterns,
            self.loc.detach().clone(),
            self.scale_tril.detach().clone(),
        )


def assembled_guide(
    model: Model, parts: GuideParts, population: PopulationPart | None, tuned: bool
) -> AmortizedGuide:
    """A guide from its parts."""
    guide = AmortizedGuide(
        model,
        parts.structure,
        parts.posterior,
        parts.training_distribution,
        parts.history,
        parts.patterns,
    )
    return guide.at(parts.loc, parts.scale_tril)._copy(parts.posterior, population, tuned)
