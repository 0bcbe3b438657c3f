r"""Posterior draws of every individual, corrected by the model's own density.

Draws :math:`u_{ik}` from a proposal :math:`q_i` get the weights

.. math:: w_{ik} = \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})},

whose mean estimates :math:`p(y_i \mid \Psi)` without bias. The proposal is the guide's posterior. Where the weights
are poor (few effective draws, or a Pareto k above 0.7), that individual is refined on its own: a mixture of
Student-t distributions is fitted to its weighted draws, and draws are taken from

.. math:: 0.8\, t_i + 0.1\, q_i + 0.1\, p(u \mid \Psi),

of which the last part bounds the weights. Rounds with more draws follow as long as they help. Any Pyro guide of
the program can stand in for the amortized one.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Generator, Tensor

from .cohort import Cohort
from .errors import AmortizedWarning, GuideError
from .guide import AmortizedGuide
from .importance import (
    PARETO_K_LIMIT,
    ImportanceEstimate,
    finite_or_zero_weight,
    importance_estimate,
    normalized_weights,
    resample,
    weighted_moments,
)
from .isolation import foreign_program, make_generator, seeded
from .mixture import StudentMixture, fit_student_mixture
from .structure import PLATE, ModelStructure, Population

Target = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
MIN_EFFICIENCY = 0.6
ROUNDS = ((1, 1), (1, 2), (3, 2), (5, 4), (5, 8))
PARTS = {"mixture": 0.8, "guide": 0.1, "population": 0.1}


@dataclass(frozen=True, eq=False)
class IndividualPosteriors:
    r"""Weighted posterior draws of every individual.

    Args:
        structure: The program.
        cohort: The data.
        population: The population parameters that the draws are conditioned on.
        unconstrained: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, individual)``.
        log_weights: Log target minus log proposal, shape ``(draw, individual)``; -inf where not finite.
        method: Per individual, what the draws come from: ``"guide"`` or ``"student-t mixture"``.
    """

    structure: ModelStructure
    cohort: Cohort
    population: Mapping[str, Tensor]
    unconstrained: Tensor
    log_proposal: Tensor
    log_weights: Tensor
    method: tuple[str, ...]

    @property
    def num_draws(self) -> int:
        """Number of draws per individual."""
        return len(self.log_weights)

    @property
    def estimate(self) -> ImportanceEstimate:
        """log p(y_i | Psi) with its Monte Carlo error, ESS and Pareto k, shape ``(individual,)``."""
        return importance_estimate(self.log_weights)

    @property
    def weights(self) -> Tensor:
        """Normalised weights, shape ``(draw, individual)``."""
        return normalized_weights(self.log_weights)

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and sd in unconstrained coordinates with their Monte Carlo errors, ``(individual, latent)`` each."""
        return weighted_moments(self.unconstrained, self.weights)

    def resampled(self, num_draws: int, seed: int | Generator = 0) -> Tensor:
        """Equally weighted draws in unconstrained coordinates, shape ``(num_draws, individual, latent)``."""
        index = resample(self.weights, num_draws, make_generator(seed))
        return self.unconstrained.gather(0, index.unsqueeze(-1).expand(-1, -1, self.unconstrained.shape[-1]))

    def draws(self, num_draws: int, seed: int | Generator = 0) -> dict[str, Tensor]:
        """Equally weighted draws of the individual sites, by name, shape ``(num_draws, individual, *event)``."""
        picked = self.resampled(num_draws, seed)
        return self.structure.constrained_draws(self.cohort, picked, self.population)

    def predict(self, num_draws: int, seed: int | Generator = 0) -> dict[str, Tensor]:
        """Posterior predictive observations by series, shape ``(num_draws, individual, time[, channel])``."""
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
) -> IndividualPosteriors:
    r"""Corrected posterior draws of every individual, given the population.

    Args:
        guide: An :class:`~pyro_amortized.AmortizedGuide`, or any Pyro guide that samples the individual sites of
            the program when it is called with a cohort (then pass ``structure``).
        cohort: The data.
        population: Values of all population sites, for instance ``fit.estimates``.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.
        structure: Structure of the program, if it is not the guide's own.

    Returns:
        Weighted draws. Individuals that stay poor are announced by one warning and keep their k.

    Raises:
        GuideError: The guide lacks individual sites of the program, or there is no structure.
        ModelError: A population value is missing or outside its support.
    """
    structure = structure or getattr(guide, "structure", None)
    if structure is None:
        raise GuideError(
            f"A guide of type {type(guide).__name__} without a structure.",
            "an AmortizedGuide, or `structure=` for any other guide.",
            "pass `structure=pa.read_structure(model, cohort)`.",
        )
    if num_draws < 25:
        raise GuideError(f"`num_draws` is {num_draws}.", "at least 25.", "pass a larger `num_draws=`.")
    generator = make_generator(seed)
    population = {name: x.detach() for name, x in structure.check_population(population).items()}
    cohort = cohort.to(dtype=torch.float64)

    def target(draws: Tensor, rows: Tensor) -> Tensor:
        density = structure.log_density(cohort[rows], draws, population)
        return density.observation + density.individual

    def prior(num: int, rows: Tensor, generator: Generator) -> Tensor:
        return structure.draw_individuals(cohort[rows], population, num, generator)

    def log_prior(draws: Tensor, rows: Tensor) -> Tensor:
        return structure.log_density(cohort[rows], draws, population).individual

    with torch.no_grad():
        proposal = _Proposal(guide, structure, cohort, population)
        draws, log_proposal = proposal.draw(num_draws, torch.arange(len(cohort)), generator)
        sampler = Sampler(target, prior, log_prior, proposal)
        sampled = sampler.weigh(draws, log_proposal, torch.arange(len(cohort)))
        method = ["guide"] * len(cohort)
        if refine:
            sampled, method = sampler.refine(sampled, method, generator)
    result = IndividualPosteriors(structure, cohort, population, *sampled, tuple(method))
    if refine:
        _warn_poor(result)
    return result


def _warn_poor(result: IndividualPosteriors) -> None:
    bad = result.estimate.pareto_k > PARETO_K_LIMIT
    if bool(bad.any()):
        rows = bad.nonzero()[:, 0].tolist()
        named = ", ".join(f"{result.cohort.ids[i]} (k = {float(result.estimate.pareto_k[i]):.2f})" for i in rows[:10])
        warnings.warn(
            f"The weights of {len(rows)} of {len(result.cohort)} individuals are unreliable (Pareto k above "
            f"{PARETO_K_LIMIT}) after refinement: {named}{', ...' if len(rows) > 10 else ''}.",
            AmortizedWarning,
            stacklevel=3,
        )


class _Proposal:
    """The guide as a proposal in unconstrained coordinates."""

    def __init__(self, guide: Any, structure: ModelStructure, cohort: Cohort, population: Population) -> None:
        self.guide, self.structure, self.cohort, self.population = guide, structure, cohort, population
        self.law = guide.individual_posterior(cohort, population) if isinstance(guide, AmortizedGuide) else None

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws and their log density."""
        if self.law is None:
            return _trace_guide(self, num_draws, rows, generator)
        law = self.law.take(rows)
        with seeded(generator):
            draws = law.rsample(torch.Size([num_draws]))
        return draws, law.log_prob(draws)

    @property
    def has_density(self) -> bool:
        """Whether the density is known at any draws; a foreign guide tells it only for its own."""
        return self.law is not None

    def log_prob(self, draws: Tensor, rows: Tensor) -> Tensor:
        """Log density at any draws."""
        assert self.law is not None
        return self.law.take(rows).log_prob(draws)


def _trace_guide(proposal: _Proposal, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws and log density from any Pyro guide, called with the cohort laid end to end."""
    structure, many = proposal.structure, proposal.cohort[rows].repeat(num_draws)
    conditioned = pyro.poutine.condition(proposal.guide, data=dict(proposal.population))
    with foreign_program(), seeded(generator):
        trace = pyro.poutine.trace(conditioned).get_trace(many)
        trace.compute_log_prob()
    missing = [name for name in structure.individual if name not in trace]
    if missing:
        raise GuideError(
            f"The guide does not sample {missing}.",
            f"a guide that samples {list(structure.individual)} in the plate {PLATE!r}.",
            "complete the guide.",
        )
    total = torch.zeros(len(many), dtype=torch.float64)
    for site in trace.nodes.values():
        frame = next((f for f in site.get("cond_indep_stack", ()) if f.name == PLATE), None)
        if site["type"] == "sample" and frame is not None and site["name"] != PLATE:
            rowwise = site["log_prob"].movedim(frame.dim, 0).reshape(site["log_prob"].shape[frame.dim], -1)
            total = total + rowwise.sum(1)
    values = {name: trace.nodes[name]["value"].double() for name in structure.individual}
    draws = structure.unconstrain(many, values, proposal.population)
    _, jacobian = structure.constrain(many, draws, proposal.population)
    shape = (num_draws, len(rows))
    return draws.reshape(*shape, -1), (total + jacobian).reshape(shape)


Sampled = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Sampler:
    r"""Importance sampling of a batch of targets, with refinement per individual.

    Args:
        target: Log target density of draws ``(draw, row, latent)`` of the given individuals.
        prior: Draws from the defensive part.
        log_prior: Its log density.
        proposal: The guide.
    """

    target: Target
    prior: Draw
    log_prior: Target
    proposal: Any

    def weigh(self, draws: Tensor, log_proposal: Tensor, rows: Tensor) -> Sampled:
        """Draws, their log proposal density and their log weights."""
        log_weights = finite_or_zero_weight(self.target(draws, rows) - log_proposal)
        return draws, log_proposal, log_weights

    def refine(self, sampled: Sampled, method: list[str], generator: Generator) -> tuple[Sampled, list[str]]:
        """Improve the individuals whose weights are poor, each on its own."""
        best, method = tuple(x.clone() for x in sampled), list(method)
        for num_components, factor in ROUNDS:
            rows = _poor(best[2]).nonzero()[:, 0]
            if len(rows) == 0:
                break
            found = self._round((best[0], best[1], best[2]), rows, num_components, factor, generator)
            better = _score(found[2]) > _score(best[2][:, rows])
            for old, new in zip(best, found, strict=True):
                old[:, rows[better]] = new[:, better]
            for i in rows[better].tolist():
                method[i] = "student-t mixture"
        return (best[0], best[1], best[2]), method

    def _round(
        self, sampled: Sampled, rows: Tensor, num_components: int, factor: int, generator: Generator
    ) -> Sampled:
        found = sampled[0][:, rows], sampled[1][:, rows], sampled[2][:, rows]
        num_draws = len(found[2])
        for size in (factor * num_draws, num_draws) if factor > 1 else (num_draws,):
            weights = tempered_weights(found[2])
            mixture = fit_student_mixture(found[0], weights, num_components, generator)
            found = self._draw_mixture(mixture, size, rows, generator)
        return found

    def _draw_mixture(self, mixture: StudentMixture, num_draws: int, rows: Tensor, generator: Generator) -> Sampled:
        parts = dict(PARTS)
        if not self.proposal.has_density:
            parts["mixture"] += parts.pop("guide")
        counts = {name: round(share * num_draws) for name, share in parts.items()}
        counts["mixture"] += num_draws - sum(counts.values())
        pieces = [mixture.draw(counts["mixture"], generator)]
        if "guide" in parts:
            pieces.append(self.proposal.draw(counts["guide"], rows, generator)[0])
        pieces.append(self.prior(counts["population"], rows, generator))
        draws = torch.cat(pieces)
        terms = [math.log(counts["mixture"] / num_draws) + mixture.log_prob(draws)]
        if "guide" in parts:
            terms.append(math.log(counts["guide"] / num_draws) + self.proposal.log_prob(draws, rows))
        terms.append(math.log(counts["population"] / num_draws) + self.log_prior(draws, rows))
        log_proposal = torch.stack([t.nan_to_num(-math.inf, math.inf, -math.inf) for t in terms]).logsumexp(0)
        return self.weigh(draws, log_proposal, rows)


def tempered_weights(log_weights: Tensor) -> Tensor:
    """Normalised weights, flattened where few draws carry all: a power below one keeps some 50 effective draws."""
    wanted = min(50.0, 0.2 * len(log_weights))
    power = torch.ones(log_weights.shape[1], dtype=log_weights.dtype)
    for _ in range(30):
        weights = normalized_weights(_scaled(log_weights, power))
        few = 1 / weights.pow(2).sum(0) < wanted
        if not bool(few.any()):
            break
        power = torch.where(few, power * 0.7, power)
    return normalized_weights(_scaled(log_weights, power))


def _scaled(log_weights: Tensor, power: Tensor) -> Tensor:
    return torch.where(log_weights == -math.inf, log_weights, log_weights * power)


def _poor(log_weights: Tensor) -> Tensor:
    estimate = importance_estimate(log_weights)
    return (estimate.ess < MIN_EFFICIENCY * len(log_weights)) | (estimate.pareto_k > PARETO_K_LIMIT)


def _score(log_weights: Tensor) -> Tensor:
    """Effective draws; weights that cannot be trusted (Pareto k) count for little."""
    estimate = importance_estimate(log_weights)
    trusted = torch.where(estimate.pareto_k <= PARETO_K_LIMIT, 1.0, 0.01)
    return estimate.ess * trusted

