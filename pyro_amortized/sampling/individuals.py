r"""Posterior draws of every individual, corrected by the model's own density.

Draws :math:`u_{ik}` from a proposal :math:`q_i` get the weights

.. math:: w_{ik} = \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})},

whose mean estimates :math:`p(y_i \mid \Psi)` without bias. The proposal is the guide's posterior.
Where a pilot shows that its weights are poor (few effective draws, or a Pareto k above 0.7), that
individual is refined on its own: a Student-t distribution :math:`t_i` is fitted to its weighted
draws, and fresh draws come from

.. math:: 0.9\, t_i + 0.05\, \hat q_i + 0.05\, p(u \mid \Psi),

with a mixture :math:`\hat q_i` in the shape of the guide; the last part bounds the weights.
Mixtures with more components follow where that is not enough. Draws that adapt never estimate. Any
Pyro guide of the program can stand in for the amortized one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import GuideError
from ..guide import AmortizedGuide
from ..guide.learned_likelihood import structure_with
from ..model import (
    PLATE,
    Estimator,
    ModelStructure,
    Population,
    check_recorded,
    log_prob_by_individual,
)
from ..runtime.arguments import check_count, check_is
from ..runtime.isolation import foreign_program, seeded
from ..runtime.random_numbers import make_generator
from ..runtime.user_warnings import warn_user
from .adaptive_importance import Sampler
from .importance_weights import (
    PARETO_K_LIMIT,
    ImportanceEstimate,
    importance_estimate,
    normalized_weights,
    resample,
    weighted_moments,
)
from .proposals import FlowProposal, Proposal, Refinement, Sampled
from .unreliable_individuals import MAX_CHAINS, MIN_ESS, rescue, unreliable

MIN_DRAWS = 25  # that Pareto k can be found of


@dataclass(frozen=True, eq=False)
class IndividualPosteriors:
    r"""Weighted posterior draws of every individual.

    Args:
        structure: The program.
        cohort: The data.
        population: The population parameters that the draws are conditioned on.
        unconstrained: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, individual)``.
        log_weights: Log target minus log proposal, shape ``(draw, individual)``; -inf where not
            finite.
        method: Per individual, what the draws come from: ``"guide"``, ``"student-t mixture"``, or
            ``"nuts"`` where a chain was run last (the draws come from a mixture fitted to it, or
            from the one before where that is better).
        refinement: The mixtures.
    """

    structure: ModelStructure
    cohort: Cohort
    population: Mapping[str, Tensor]
    unconstrained: Tensor
    log_proposal: Tensor
    log_weights: Tensor
    method: tuple[str, ...]
    refinement: Refinement

    @property
    def num_draws(self) -> int:
        """Number of draws per individual."""
        return len(self.log_weights)

    @property
    def estimate(self) -> ImportanceEstimate:
        """Log p(y_i | Psi) with its Monte Carlo error, ESS and Pareto k, shape
        ``(individual,)``.
        """
        return importance_estimate(self.log_weights)

    @property
    def weights(self) -> Tensor:
        """Normalised weights, shape ``(draw, individual)``."""
        return normalized_weights(self.log_weights)

    def some(self, num_draws: int, seed: int | Generator = 0) -> "IndividualPosteriors":
        """A random part of the weighted draws, the same places for all individuals."""
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
        """Mean and sd in unconstrained coordinates with their Monte Carlo errors, ``(individual,
        latent)`` each.
        """
        return weighted_moments(self.unconstrained, self.weights)

    def resampled(self, num_draws: int, seed: int | Generator = 0) -> Tensor:
        """Equally weighted draws in unconstrained coordinates, shape ``(num_draws, individual,
        latent)``.
        """
        return self.resampled_with_places(num_draws, seed)[0]

    def resampled_with_places(
        self, num_draws: int, seed: int | Generator = 0
    ) -> tuple[Tensor, Tensor]:
        """The same, and which of the weighted draws each one is, shape ``(num_draws,
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
    guide: Any,
    cohort: Cohort,
    *,
    population: Population,
    num_draws: int = 1000,
    seed: int | Generator = 0,
    refine: bool = True,
    structure: ModelStructure | None = None,
    before: IndividualPosteriors | None = None,
    estimator: Estimator | None = None,
    max_chains: int = MAX_CHAINS,
) -> IndividualPosteriors:
    r"""Corrected posterior draws of every individual, given the population.

    Args:
        guide: An :class:`~pyro_amortized.AmortizedGuide`, or any Pyro guide that samples the
            individual sites of the program when it is called with a cohort (then pass
            ``structure``).
        cohort: The data.
        population: Values of all population sites, for instance ``fit.estimates``.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.
        structure: Structure of the program, if it is not the guide's own.
        before: Draws of the same individuals at another population: the mixtures that served
            there are tried first. No draw is used again.
        estimator: ``"corrected"`` by the program's density, or ``"likelihood-free"``, by what the
            guide has learned in its place (see :mod:`pyro_amortized.guide.learned_likelihood`).
            Default: corrected
            where the program has a density. ``result.structure.estimator`` says which.
        max_chains: Individuals whose Pareto k stays above 0.7, or who keep fewer than 20 effective
            draws, get a chain of NUTS of their own, the worst first, at most so many; a mixture
            fitted to the chain is then drawn from.

    Returns:
        Weighted draws. Individuals that stay poor are announced by one warning, and keep their k
        and the method that was tried last.

    Raises:
        GuideError: The guide lacks individual sites of the program, or there is no structure.
        ModelError: A population value is missing or outside its support.
    """
    check_is("cohort", cohort, Cohort, "pass a Cohort, as `read_table` gives.", GuideError)
    if structure is None:
        structure = getattr(guide, "structure", None)
        if structure is None:
            raise GuideError(
                f"A guide of type {type(guide).__name__} without a structure.",
                "an AmortizedGuide, or `structure=` for any other guide.",
                "pass `structure=pa.read_structure(model, cohort)`.",
            )
        check_recorded(structure, cohort)
    if isinstance(guide, AmortizedGuide):
        structure = structure_with(structure, guide, estimator)
    check_count("num_draws", num_draws, least=MIN_DRAWS, error=GuideError)
    generator = make_generator(seed)
    population = {name: x.detach() for name, x in structure.check_population(population).items()}
    cohort = cohort.to(dtype=torch.float64)
    if isinstance(guide, AmortizedGuide):
        _warn_unusual(guide.patterns.unusual(cohort))
    with torch.no_grad():
        sampler = make_sampler(guide, structure, cohort, population)
        drawn, refinement = sampler.sample(
            num_draws, len(cohort), generator, refine, None if before is None else before.refinement
        )
        sampled, chains = Sampled(drawn, refinement), []
        if refine and max_chains:
            chains = rescue(sampler, sampled, generator, max_chains)
    kinds = ["student-t mixture" if x else "guide" for x in refinement.refined.tolist()]
    method = tuple("nuts" if i in chains else x for i, x in enumerate(kinds))
    result = IndividualPosteriors(
        structure,
        cohort,
        population,
        drawn.draws,
        drawn.log_proposal,
        drawn.log_weights,
        method,
        refinement,
    )
    if refine:
        _warn_poor(result)
    return result


def make_sampler(
    guide: Any, structure: ModelStructure, cohort: Cohort, population: Population
) -> Sampler:
    """What samples the individuals of a cohort in float64 given the population."""

    def target(draws: Tensor, rows: Tensor) -> Tensor:
        density = structure.log_density(cohort[rows], draws, population)
        return density.observation + density.individual

    def draw_population(num: int, rows: Tensor, generator: Generator) -> Tensor:
        return structure.draw_individuals(cohort[rows], population, num, generator)

    def log_population(draws: Tensor, rows: Tensor) -> Tensor:
        return structure.log_individual(cohort[rows], draws, population)

    proposal: Proposal = (
        FlowProposal(guide.individual_posterior(cohort, population))
        if isinstance(guide, AmortizedGuide)
        else ForeignProposal(guide, structure, cohort, population)
    )
    return Sampler(target, draw_population, log_population, proposal)


def _warn_unusual(unusual: Mapping[str, str]) -> None:
    if unusual:
        named = "; ".join(f"{label}: {why}" for label, why in list(unusual.items())[:5])
        warn_user(
            f"The missing values of {len(unusual)} individuals follow patterns far outside those "
            f"the guide was trained on ({named}{'; ...' if len(unusual) > 5 else ''}). Their draws "
            "are corrected all the same; train on a design that has such patterns to need fewer."
        )


def _warn_poor(result: IndividualPosteriors) -> None:
    bad = unreliable(result.estimate, result.num_draws)
    if bool(bad.any()):
        worst = result.estimate.ess.argsort()
        rows = worst[bad[worst]].tolist()
        named = ", ".join(
            f"{result.cohort.ids[i]} (k = {float(result.estimate.pareto_k[i]):.2f}, "
            f"ESS {float(result.estimate.ess[i]):.0f}, {result.method[i]})"
            for i in rows[:10]
        )
        warn_user(
            f"The weights of {len(rows)} of {len(result.cohort)} individuals are unreliable "
            f"(Pareto k above {PARETO_K_LIMIT}, or fewer than {MIN_ESS:.0f} effective draws) after "
            f"refinement: {named}{', ...' if len(rows) > 10 else ''}."
        )


class ForeignProposal:
    """Any Pyro guide as a proposal."""

    def __init__(
        self, guide: Any, structure: ModelStructure, cohort: Cohort, population: Population
    ) -> None:
        self.guide, self.structure, self.cohort, self.population = (
            guide,
            structure,
            cohort,
            population,
        )

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws in unconstrained coordinates and their log density, from one call with the cohort
        laid end to end.
        """
        many = self.cohort[rows].repeat(num_draws)
        conditioned = pyro.poutine.condition(self.guide, data=dict(self.population))
        with foreign_program(), seeded(generator):
            trace = pyro.poutine.trace(conditioned).get_trace(many)
        missing = [name for name in self.structure.individual if name not in trace]
        if missing:
            raise GuideError(
                f"The guide does not sample {missing}.",
                f"a guide that samples {list(self.structure.individual)} in the plate {PLATE!r}.",
                "complete the guide.",
            )
        values = {name: trace.nodes[name]["value"].double() for name in self.structure.individual}
        draws = self.structure.unconstrain(many, values, self.population)
        _, jacobian = self.structure.constrain(many, draws, self.population)
        log_prob = log_prob_by_individual(trace, len(many))[1] + jacobian
        shape = (num_draws, len(rows))
        return draws.reshape(*shape, -1), log_prob.reshape(shape)
