r"""Posterior draws of every individual, corrected by the model's own density.

Draws :math:`u_{ik}` from a proposal :math:`q_i` get the weights

.. math:: w_{ik} = \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})},

whose mean estimates :math:`p(y_i \mid \Psi)` without bias. The proposal is the posterior of the
guide. If a pilot shows that its weights are poor (few effective draws, or a Pareto k above 0.7),
the individual is refined: a Student-t distribution :math:`t_i` is fitted to its weighted draws, and
new draws come from

.. math:: 0.9\, t_i + 0.05\, \hat q_i + 0.05\, p(u \mid \Psi),

with a mixture :math:`\hat q_i` in the shape of the guide; the last part bounds the weights.
Mixtures with more components follow if this is not enough. Draws that a mixture is fitted to are
not used in estimates. Any Pyro guide of the individual sites can replace the amortized one.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import GuideError
from ..guide import AmortizedGuide
from ..guide.learned_likelihood import structure_to_fit
from ..model import Estimator, Model, ModelStructure, Population
from ..runtime.arguments import check_count, check_number
from ..runtime.random_numbers import make_generator
from ..runtime.threads import threads_for
from .adaptive_importance import sample_targets
from .control_variates import ControlledEstimate, controlled_estimate
from .counted_density import CountedDensity
from .importance_weights import (
    ImportanceEstimate,
    importance_estimate,
    normalized_weights,
    resample,
    weighted_moments,
)
from .individual_sampler import make_sampler
from .minor_modes import with_minor_modes
from .posterior_warnings import warn_unreliable, warn_unusual
from .proposals import Refinement, Sampled
from .refinement_settings import FULL_EFFORT, REFINEMENT, Effort
from .sampling_stage import NAMES, Stage
from .sampling_summary import SamplingRow, SamplingSummary
from .unreliable_individuals import improve_unreliable
from .weighted_quantiles import weighted_quantiles

MIN_DRAWS = 25  # smallest number of draws for which Pareto k is defined: a tail of five weights


@dataclass(frozen=True, eq=False)
class IndividualPosteriors:
    r"""Weighted posterior draws of every individual.

    Args:
        structure: Structure of the model.
        cohort: The data.
        population: The population parameters that the draws are conditioned on.
        unconstrained: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, individual)``.
        log_weights: Log target minus log proposal, shape ``(draw, individual)``; -inf where it is
            not finite.
        method: For each individual, what the draws come from: ``"guide"``, ``"population"``
            (without a guide), ``"student-t mixture"``, or ``"nuts"``: a mixture that was fitted to
            a chain.
        refinement: The stages and mixtures of the individuals.
        evaluations: Number of densities of each individual that were evaluated for the draws, shape
            ``(individual,)``.
    """

    structure: ModelStructure
    cohort: Cohort
    population: Mapping[str, Tensor]
    unconstrained: Tensor
    log_proposal: Tensor
    log_weights: Tensor
    method: tuple[str, ...]
    refinement: Refinement
    evaluations: Tensor

    def __repr__(self) -> str:
        ess, names = self.estimate.ess, ", ".join(self.structure.latent_names)
        return (
            f"IndividualPosteriors of {len(self.cohort)} individuals: {self.num_draws} draws of "
            f"{names}; effective draws {ess.min():.0f} to {ess.max():.0f}, largest Pareto k "
            f"{float(self.estimate.pareto_k.max()):.2f}"
        )

    @property
    def num_draws(self) -> int:
        """Number of draws per individual."""
        return len(self.log_weights)

    @property
    def num_modes(self) -> Tensor:
        """Number of modes of each individual that were found, shape ``(individual,)``; 0 where they
        were not searched for: draws of the guide, and individuals of large cohorts.
        """
        return self.refinement.num_modes

    @property
    def estimate(self) -> ImportanceEstimate:
        """Log p(y_i | Psi) with its Monte Carlo error, ESS and Pareto k, shape
        ``(individual,)``.
        """
        return importance_estimate(self.log_weights)

    @functools.cached_property
    def controlled(self) -> ControlledEstimate:
        """As :attr:`estimate`, with control variates, which reduce the Monte Carlo error of nearly
        normal posteriors to a tenth or less; and the factors of the weights.
        """
        return controlled_estimate(self.unconstrained, self.log_proposal, self.log_weights)

    @property
    def marginal_estimate(self) -> ImportanceEstimate:
        """The estimate with control variates."""
        return self.controlled.estimate

    @property
    def factors(self) -> Tensor | None:
        """Factors of the weights in the estimate with control variates, shape ``(draw,
        individual)``; None if it is the mean of the weights for all individuals.
        """
        factors = self.controlled.factors
        return None if bool((factors == 1).all()) else factors

    @property
    def weights(self) -> Tensor:
        """Normalised weights, shape ``(draw, individual)``."""
        return normalized_weights(self.log_weights)

    def summary(self) -> SamplingSummary:
        """For each individual the source, number and quality of its draws, and what they cost."""
        estimate = self.estimate
        columns = (self.evaluations, estimate.ess, estimate.pareto_k, self.num_modes)
        rows = zip(self.cohort.ids, self.method, *(x.tolist() for x in columns), strict=True)
        return SamplingSummary([SamplingRow(*row) for row in rows], self.num_draws)

    def take(self, rows: Tensor) -> "IndividualPosteriors":
        """The draws of some individuals."""
        method = tuple(self.method[i] for i in rows.tolist())
        return IndividualPosteriors(
            self.structure,
            self.cohort[rows],
            self.population,
            self.unconstrained[:, rows],
            self.log_proposal[:, rows],
            self.log_weights[:, rows],
            method,
            self.refinement.take(rows),
            self.evaluations[rows],
        )

    def some(self, num_draws: int, seed: int | Generator = 0) -> "IndividualPosteriors":
        """A random part of the weighted draws, with the same indices for all individuals."""
        if num_draws >= self.num_draws:
            return self
        picked = torch.randperm(self.num_draws, generator=make_generator(seed))[:num_draws]
        return replace(
            self,
            unconstrained=self.unconstrained[picked],
            log_proposal=self.log_proposal[picked],
            log_weights=self.log_weights[picked],
        )

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and standard deviation in unconstrained coordinates, and the Monte Carlo error of
        each; four tensors of shape ``(individual, latent)``.
        """
        return weighted_moments(self.unconstrained, self.weights)

    def values(self) -> dict[str, Tensor]:
        """The weighted draws in the units of the model, shape ``(draw, individual, *event)``."""
        return self.structure.constrained_draws(self.cohort, self.unconstrained, self.population)

    def site_moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of every individual parameter in the units of the model, by
        site, shape ``(individual, *event)`` each.
        """
        moments = {}
        for name, x in self.values().items():
            mean, sd, *_ = weighted_moments(x.reshape(*x.shape[:2], -1), self.weights)
            moments[name] = (mean.reshape(x.shape[1:]), sd.reshape(x.shape[1:]))
        return moments

    def quantiles(self, levels: Sequence[float]) -> dict[str, Tensor]:
        r"""Quantiles of every individual parameter in the units of the model.

        Args:
            levels: Levels between 0 and 1.

        Returns:
            By site, shape ``(level, individual, *event)``.

        Raises:
            SettingError: A level lies outside [0, 1].
        """
        for level in levels:
            check_number("levels", level, 0, 1)
        wanted = torch.as_tensor(levels, dtype=torch.float64)
        values = self.values().items()
        return {name: weighted_quantiles(x, self.weights, wanted) for name, x in values}

    def resampled(self, num_draws: int, seed: int | Generator = 0) -> Tensor:
        """Equally weighted draws in unconstrained coordinates, shape ``(num_draws, individual,
        latent)``.
        """
        return self.resampled_with_places(num_draws, seed)[0]

    def resampled_with_places(
        self, num_draws: int, seed: int | Generator = 0
    ) -> tuple[Tensor, Tensor]:
        """The same, and the index of each one among the weighted draws, shape ``(num_draws,
        individual)``.
        """
        index = resample(self.weights, num_draws, make_generator(seed))
        wide = index.unsqueeze(-1).expand(-1, -1, self.unconstrained.shape[-1])
        return self.unconstrained.gather(0, wide), index

    def draws(self, num_draws: int, seed: int | Generator = 0) -> dict[str, Tensor]:
        """Equally weighted draws of the individual sites, by name, shape ``(num_draws, individual,
        *event)``.
        """
        picked = self.resampled(num_draws, seed)
        return self.structure.constrained_draws(self.cohort, picked, self.population)

    def predict(self, num_draws: int, seed: int | Generator = 0) -> dict[str, Tensor]:
        """Posterior predictive observations by series, shape ``(num_draws, individual, time[,
        channel])``.
        """
        generator = make_generator(seed)
        picked = self.resampled(num_draws, generator)
        return self.structure.predict_draws(self.cohort, picked, self.population, generator)


def sample_individuals(
    model: Model,
    cohort: Cohort,
    population: Population,
    *,
    guide: Any = None,
    num_draws: int = 1000,
    seed: int | Generator = 0,
    refine: bool = True,
    before: IndividualPosteriors | None = None,
    estimator: Estimator | None = None,
    max_chains: int = FULL_EFFORT.max_chains,
) -> IndividualPosteriors:
    r"""Corrected posterior draws of every individual, given the population.

    Args:
        model: The model: that of the guide, or another one with the same individual sites.
        cohort: The data.
        population: Values of all population sites, for instance ``fit.estimates``.
        guide: An :class:`~pyro_amortized.AmortizedGuide`, or any Pyro guide that samples the
            individual sites of the model when it is called with a cohort. Default: the first draws
            come from the population, and every individual is refined.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.
        before: Draws of the same individuals at another population. Their mixtures are tried
            first; the draws themselves are not used.
        estimator: ``"corrected"`` by the density of the model, or ``"likelihood-free"``: by the
            density that the guide has learned (see
            :mod:`pyro_amortized.guide.learned_likelihood`). Default: corrected if the model has a
            density. ``result.structure.estimator`` says which.
        max_chains: Largest number of individuals that get a chain of NUTS. Those with the fewest
            effective draws come first, among the individuals that still have fewer than 20
            effective draws or a Pareto k above 0.7. The draws come from a mixture fitted to the
            chain.

    Returns:
        Weighted draws; ``print(result.summary())`` shows for each individual what its draws come
        from, what they cost and how good they are. One warning names the individuals whose weights
        are unreliable.

    Raises:
        GuideError: The guide does not sample all individual sites of the model.
        ModelError: A population value is missing or outside its support, or the model has no
            density and there is no guide.
    """
    trained = guide if guide is None or isinstance(guide, AmortizedGuide) else None
    structure = structure_to_fit(model, cohort, trained, estimator)
    return sample_with_structure(
        structure,
        guide,
        cohort,
        population,
        num_draws=num_draws,
        seed=seed,
        effort=Effort(REFINEMENT if refine else None, max_chains),
        known=None if before is None else before.refinement,
    )


def sample_with_structure(
    structure: ModelStructure,
    guide: Any,
    cohort: Cohort,
    population: Population,
    *,
    num_draws: int,
    seed: int | Generator = 0,
    effort: Effort = FULL_EFFORT,
    known: Refinement | None = None,
) -> IndividualPosteriors:
    """:func:`sample_individuals` for a model that was read before; ``known`` are mixtures of the
    individuals that are tried first.
    """
    check_count("num_draws", num_draws, least=MIN_DRAWS, error=GuideError)
    generator = make_generator(seed)
    population = {name: x.detach() for name, x in structure.check_population(population).items()}
    cohort = cohort.to(dtype=torch.float64)
    if isinstance(guide, AmortizedGuide):
        warn_unusual(guide.patterns.unusual(cohort))
    with torch.no_grad(), threads_for(num_draws * cohort.num_values):
        refine = effort.settings is not None
        sampler = make_sampler(guide, structure, cohort, population)
        density = CountedDensity(sampler.target, len(cohort))
        sampler = replace(sampler, target=density, settings=effort.settings or REFINEMENT)
        sampled = sample_targets(sampler, num_draws, len(cohort), generator, refine, known)
        if refine and effort.search_modes:
            recorded = cohort.num_recorded(structure.series)
            sampled = with_minor_modes(sampler, sampled, generator, recorded)
        if refine and effort.max_chains:
            sampled = improve_unreliable(sampler, sampled, generator, effort.max_chains)
    parts = (sampled, density.evaluations, "population" if guide is None else "guide")
    result = individual_posteriors(structure, cohort, population, *parts)
    warn_unreliable(cohort.ids, result.estimate, num_draws, result.method, refine)
    return result


def individual_posteriors(
    structure: ModelStructure,
    cohort: Cohort,
    population: Population,
    sampled: Sampled,
    evaluations: Tensor,
    first: str = "guide",
) -> IndividualPosteriors:
    """Draws of a sampler with the model, data and population that they belong to, and what they
    cost; ``first`` says where the draws of individuals come from that were not refined.
    """
    weighted, refinement = sampled
    return IndividualPosteriors(
        structure,
        cohort,
        population,
        weighted.draws,
        weighted.log_proposal,
        weighted.log_weights,
        tuple(NAMES.get(Stage(x), first) for x in refinement.stage.tolist()),
        refinement,
        evaluations,
    )
