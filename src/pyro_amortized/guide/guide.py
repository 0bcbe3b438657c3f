r"""The amortized posterior as a Pyro guide.

:class:`AmortizedGuide` is an ``AutoGuide`` for the user's program: it samples the population sites
from a normal distribution in unconstrained coordinates (learnable by SVI, set by
:meth:`AmortizedGuide.at`), and then the individual sites from the amortized posterior given the
data and the shared parameters. The networks are frozen and kept out of Pyro's parameter store.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, MultivariateNormal
from pyro.infer.autoguide import AutoGuide
from pyro.nn import PyroParam
from safetensors.torch import save as serialize
from torch import Tensor
from torch.distributions import biject_to, constraints

from ..cohort import Cohort
from ..errors import GuideError
from ..factor import factored
from ..files import write_whole
from ..flows import FlowDistribution
from ..history import TrainingHistory
from ..patterns import TrainingPatterns
from ..posterior import AmortizedPosterior
from ..sharpened import SharpenedDistribution, SharpenedPosterior
from ..simulate import TrainingDistribution
from ..structure import (
    PLATE,
    Model,
    ModelStructure,
    Population,
    constrain_individuals,
)
from .files import FORMAT_VERSION, posterior_settings, signature


class AmortizedGuide(AutoGuide):  # type: ignore[misc]
    r"""A trained guide for a mixed-effects program. Made by :func:`~pyro_amortized.train`.

    Args:
        model: The program.
        structure: Its structure.
        posterior: The amortized posterior, float64, frozen.
        training_distribution: What it was trained on.
        history: How it was trained.
        patterns: Which patterns of missing values it was trained on.
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
        # In a tuple, so that Pyro does not register the networks' weights as parameters.
        self._held = (posterior.eval().requires_grad_(False),)
        self.structure = structure
        self.training_distribution = training_distribution
        self.history = history
        self.patterns = patterns
        location = structure.unconstrain_population(structure.initial_population())
        self.loc = PyroParam(location, constraints.real, event_dim=1)
        self.scale_tril = PyroParam(
            torch.eye(len(location), dtype=torch.float64) / 2, constraints.lower_cholesky
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # AutoGuide drops the model when it is pickled, from the guide that stays here too.
        parts = (self.posterior, self.training_distribution, self.history, self.patterns)
        place = (self.loc.detach().clone(), self.scale_tril.detach().clone())
        return _restored, (self.model, self.structure, *parts, *place)

    @property
    def posterior(self) -> AmortizedPosterior | SharpenedPosterior:
        """Encoder, summary network and flow; or these with Newton steps behind them."""
        return self._held[0]

    def at(self, location: Tensor, scale_tril: Tensor) -> "AmortizedGuide":
        r"""The same guide with another population part.

        Args:
            location: Unconstrained population parameters, shape ``(population,)``, for instance
                ``fit.vector``.
            scale_tril: Cholesky factor of their covariance, for instance of ``fit.covariance``.
        """
        parts = (self.posterior, self.training_distribution, self.history, self.patterns)
        other = AmortizedGuide(self.model, self.structure, *parts)
        other.loc = location.detach().clone().double()
        other.scale_tril = scale_tril.detach().clone().double()
        return other

    # The individual part.

    def shared_vector(self, population: Population) -> Tensor:
        r"""Unconstrained shared parameters that the networks are conditioned on, shape ``(*,
        shared)``.

        A shared parameter that the population does not have (another residual error model) is
        replaced by the median of its training distribution: the guide is then less exact, and its
        draws are corrected all the same.
        """
        sites = [self.structure.population[name] for name in self.structure.shared]
        typical = self.training_distribution.shared.median(0).values if sites else torch.zeros(0)
        fallback = (
            typical.double().split([site.num_unconstrained for site in sites]) if sites else ()
        )
        pieces = []
        for site, piece in zip(sites, fallback, strict=True):
            value = population.get(site.name)
            if value is None or value.shape[value.dim() - len(site.shape) :] != site.shape:
                pieces.append(piece)
            else:
                free = biject_to(site.support).inv(value.double())
                pieces.append(free.reshape(*value.shape[: value.dim() - len(site.shape)], -1))
        batch = torch.broadcast_shapes(*(p.shape[:-1] for p in pieces)) if pieces else ()
        return torch.cat([p.expand(*batch, -1) for p in pieces], -1) if pieces else typical.double()

    def individual_posterior(
        self, cohort: Cohort, population: Population
    ) -> FlowDistribution | SharpenedDistribution:
        """The posterior of every individual in unconstrained coordinates, before correction."""
        return self.posterior.condition(cohort, self.shared_vector(population))

    # The Pyro guide.

    def forward(self, cohort: Cohort, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all latent sites of the program; values by name."""
        if self.master is not None:
            raise GuideError(
                "The AmortizedGuide is part of an AutoGuideList.",
                "an AmortizedGuide that stands alone: it samples the population sites too.",
                "pass it to SVI or Importance itself, and set its population part with `guide.at`.",
            )
        population = self._sample_population(cohort)
        individual = self._sample_individuals(cohort, population)
        params = [name for name, site in self.structure.population.items() if site.is_param]
        return {name: x for name, x in population.items() if name not in params} | individual

    def _sample_population(self, cohort: Cohort) -> dict[str, Tensor]:
        sites = {name: s for name, s in self.structure.population.items() if not s.is_param}
        store = pyro.get_param_store()
        values: dict[str, Tensor] = {
            name: store[name].detach() if name in store else site.initial
            for name, site in self.structure.population.items()
            if site.is_param
        }
        if not sites:
            return values
        sampled = self._is_sampled()
        law = MultivariateNormal(self.loc[sampled], scale_tril=self._marginal_tril(sampled))
        vector = pyro.sample("_population_latent", law, infer={"is_auxiliary": True})
        pieces = vector.split([site.num_unconstrained for site in sites.values()], -1)
        for (name, site), piece in zip(sites.items(), pieces, strict=True):
            transform = biject_to(site.support)
            free = piece.reshape(piece.shape[:-1] + transform.inverse_shape(site.shape))
            value = transform(free)
            log_abs_det = transform.log_abs_det_jacobian(free, value)
            density = -log_abs_det.reshape(*piece.shape[:-1], -1).sum(-1)
            law = Delta(value.to(cohort.dtype), log_density=density, event_dim=len(site.shape))
            values[name] = pyro.sample(name, law)
        return {name: values[name] for name in self.structure.population}

    def _is_sampled(self) -> Tensor:
        """Which unconstrained coordinates belong to sample sites (not to params)."""
        flags = [
            not s.is_param
            for s in self.structure.population.values()
            for _ in range(s.num_unconstrained)
        ]
        return torch.tensor(flags)

    def _marginal_tril(self, sampled: Tensor) -> Tensor:
        if bool(sampled.all()):
            return self.scale_tril
        covariance = (self.scale_tril @ self.scale_tril.T)[sampled][:, sampled]
        return factored(covariance)

    def _sample_individuals(self, cohort: Cohort, population: Population) -> dict[str, Tensor]:
        sites = self.structure.individual
        dims = {PLATE: next(iter(sites.values())).dim}
        plates = {PLATE: pyro.plate(PLATE, len(cohort), dim=dims[PLATE])}
        for site in sites.values():
            plates |= {
                name: pyro.plate(name, size, dim=dim)
                for name, size, dim in site.plates
                if name not in plates
            }
        extra = -dims[PLATE] - 1
        law = self.posterior.for_plate(cohort, self.shared_vector(population), extra)
        with plates[PLATE]:
            drawn = pyro.sample("_individual_latent", law, infer={"is_auxiliary": True})
        rows = drawn.reshape(*drawn.shape[: drawn.dim() - extra - 1], drawn.shape[-1])
        values, jacobians = constrain_individuals(self.structure, cohort, rows, population)
        result = {}
        for name, site in sites.items():
            with ExitStack() as stack:
                for plate in (PLATE, *(p[0] for p in site.plates)):
                    stack.enter_context(plates[plate])
                delta = Delta(
                    values[name].to(cohort.dtype),
                    log_density=-jacobians[name],
                    event_dim=site.event_dim,
                )
                result[name] = pyro.sample(name, delta)
        return result

    @torch.no_grad()
    def median(self, cohort: Cohort, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Medians of 501 draws, by name; population sites at the median of their normal
        distribution.
        """
        population = self.structure.constrain_population(self.loc.detach())
        posterior = self.individual_posterior(cohort, population)
        middle = posterior.rsample(torch.Size([501])).median(0).values
        values, _ = self.structure.constrain(cohort, middle, population)
        return {
            n: x for n, x in population.items() if not self.structure.population[n].is_param
        } | values

    @torch.no_grad()
    def sample_posterior(
        self, cohort: Cohort, *args: Any, num_samples: int = 1, **kwargs: Any
    ) -> dict[str, Tensor]:
        r"""Draws of all latent sites at once, by name; each draw has its own population.

        The individuals' are those of the network, before correction: for corrected ones see
        :class:`~pyro_amortized.mcmc.AmortizedMCMC`. Pyro's generator is used, as in any guide.

        Args:
            cohort: N individuals.
            *args: As of the program; not looked at.
            **kwargs: As of the program; not looked at.
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
        alone = self(cohort)
        with pyro.plate("_draws", num_samples, dim=min(dims) - 1):
            draws = self(cohort)
        return {name: draws[name].reshape(num_samples, *x.shape) for name, x in alone.items()}

    def quantiles(
        self, quantiles: Sequence[float] | Tensor, cohort: Cohort, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        r"""Quantiles of 2,001 draws of every latent site, by name.

        Args:
            quantiles: Levels between zero and one, as of Pyro's ``AutoNormal.quantiles``.
            cohort: N individuals.
            *args: As of the program; not looked at.
            **kwargs: As of the program; not looked at.

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
        draws = self.sample_posterior(cohort, num_samples=2001)
        return {n: x.quantile(levels.to(x.dtype), dim=0) for n, x in draws.items()}

    # Files.

    def save(self, path: str | Path) -> None:
        r"""Write the guide to a folder: ``weights.safetensors`` and ``guide.json``; nothing is
        pickled.

        Args:
            path: The folder; it is made if it is not there.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"posterior.{name}": x for name, x in self.posterior.state_dict().items()}
        training = self.training_distribution
        tensors |= {"training.loc": training.loc, "training.scale_tril": training.scale_tril}
        tensors |= {"training.shared": training.shared, "population.loc": self.loc.detach()}
        if training.shared_law is not None:
            tensors |= {"training.shared_loc": training.shared_law[0]}
            tensors |= {"training.shared_scale_tril": training.shared_law[1]}
        tensors |= {"population.scale_tril": self.scale_tril.detach()}
        description = {
            "format_version": FORMAT_VERSION,
            "individual": signature(self.structure.individual),
            "shared": {
                name: self.structure.population[name].num_unconstrained
                for name in self.structure.shared
            },
            "population": signature(self.structure.population),
            **posterior_settings(self.posterior),
            "trained_on_prior": training.prior is not None,
            "history": asdict(self.history),
            "patterns": self.patterns.settings,
        }
        contiguous = {name: x.contiguous() for name, x in tensors.items()}
        write_whole(folder / "weights.safetensors", serialize(contiguous))
        write_whole(folder / "guide.json", (json.dumps(description, indent=2) + "\n").encode())


def _restored(  # noqa: PLR0913  (the parts of a guide)
    model: Model,
    structure: ModelStructure,
    posterior: AmortizedPosterior | SharpenedPosterior,
    training_distribution: TrainingDistribution,
    history: TrainingHistory,
    patterns: TrainingPatterns,
    location: Tensor,
    scale_tril: Tensor,
) -> AmortizedGuide:
    """A guide from another process."""
    guide = AmortizedGuide(model, structure, posterior, training_distribution, history, patterns)
    return guide.at(location, scale_tril)
