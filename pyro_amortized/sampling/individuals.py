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

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..model import ModelStructure, Population
from ..runtime.arguments import check_number
from ..runtime.random_numbers import make_generator
from .control_variates import ControlledEstimate, controlled_estimate
from .importance_weights import (
    ImportanceEstimate,
    importance_estimate,
    normalized_weights,
    resample,
    weighted_moments,
)
from .sampling_stage import NAMES, Stage
from .sampling_summary import SamplingRow, SamplingSummary
from .weighted_draws import Refinement, Sampled, Weighted
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
    def sampled(self) -> Sampled:
        """The weighted draws, and the refinement that they were made with."""
        weighted = Weighted(self.unconstrained, self.log_proposal, self.log_weights)
        return Sampled(weighted, self.refinement)

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
        return self.picked(picked)

    def picked(self, places: Tensor) -> "IndividualPosteriors":
        """The weighted draws at some places, the same for all individuals."""
        return replace(
            self,
            unconstrained=self.unconstrained[places],
            log_proposal=self.log_proposal[places],
            log_weights=self.log_weights[places],
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
