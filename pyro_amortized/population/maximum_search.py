r"""The search for the best population: draw, maximise, draw again.

Within a round the draws stay as they are, so the objective is smooth and its gradient exact; what a
round finds is where the next one draws. Mixtures that were fitted to single individuals are tried
again before anything is fitted anew. Several starts from the prior are settled on few draws and few
individuals.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import AmortizedWarning, FitError
from ..guide import AmortizedGuide
from ..model import ModelStructure, Population
from ..numerics.maximization import Optimum, maximize
from ..runtime.random_numbers import fork_seed, make_generator
from ..runtime.workers import run_each
from ..sampling.importance_weights import log_mean_difference
from ..sampling.individuals import IndividualPosteriors, sample_individuals
from ..sampling.unreliable_individuals import LAST_STEPS
from .expanded_likelihood import ExpandedLikelihood
from .likelihood_choice import Likelihood, make_likelihood

MAX_LOCATED = 24  # individuals whose likelihood settles the starts
# Individuals, and draws of each, that show how much the individual parameters vary.
MAX_SPREAD, NUM_SPREAD = 100, 50
MANY, MAX_SETTLED = 4000, 1000  # of so many, so many lead on before all are drawn
LOST = 1.5  # largest mean fall of log ESS in a round
FLAT, CALM = 0.05, 0.1  # change of the log likelihood, of all and of one, that counts as none
MAY_COST = -1.0  # what doubling such a standard deviation may change, in the same units
LEAST_SLOPE = 0.3  # of a log standard deviation in a coordinate that it hangs on
START_ROUNDS, START_GAIN = 4, 10.0
# Largest move by the guide's own draws, in prior standard deviations: few effective draws like
# variances of zero, and draws at such a population pin the means.
FIRST_MOVE = 1.5
TRUST = 1.0  # largest move of an expanded likelihood's parameters, in prior standard deviations

# The likelihood; with the prior density in the support (as ``AutoDelta`` does); with the prior
# density in unconstrained coordinates (as ``AutoLaplace`` does and NUTS samples).
Criterion = Literal["maximum likelihood", "maximum a posteriori", "posterior mode"]


class Ascent(NamedTuple):
    """One round: where it ended, the likelihood that it climbed, what it gained, the coordinates
    that were held because a variance vanishes, and the move that doubles what of these may be.
    """

    optimum: Optimum
    likelihood: Likelihood
    gain: float
    held: Tensor
    wider: Tensor


@dataclass(frozen=True, eq=False)
class Search:
    r"""What all rounds of a search have in common.

    Args:
        structure: The population model.
        guide: The trained guide.
        cohort: The data.
        criterion: What is maximised.
        scale: Size of a large step in each unconstrained parameter.
        seed: Seed of the individuals that show how much the individual parameters vary.
    """

    structure: ModelStructure
    guide: AmortizedGuide
    cohort: Cohort
    criterion: Criterion
    scale: Tensor
    seed: int = 0

    @classmethod
    def begin(
        cls,
        structure: ModelStructure,
        guide: AmortizedGuide,
        cohort: Cohort,
        criterion: Criterion,
        generator: Generator,
    ) -> "Search":
        """A search whose scale is that of the prior. It is estimated from draws, so one search
        serves the starts, the rounds and the standard errors of a fit.
        """
        scale = structure.population_scale(cohort, generator)
        return cls(structure, guide, cohort, criterion, scale, fork_seed(generator))

    def part(self, num: int, generator: Generator) -> "Search":
        """The same search with some individuals, picked at random."""
        if len(self.cohort) <= num:
            return self
        picked = torch.randperm(len(self.cohort), generator=generator)[:num]
        return replace(self, cohort=self.cohort[picked])

    def draw(
        self,
        vector: Tensor,
        num_draws: int,
        generator: Generator,
        before: IndividualPosteriors | None = None,
        quiet: bool = True,
        refine: bool = True,
    ) -> IndividualPosteriors:
        """Draws of every individual at a population."""
        with warnings.catch_warnings():
            if quiet:  # poor weights are no news on the way
                warnings.simplefilter("ignore", AmortizedWarning)
            return sample_individuals(
                self.guide,
                self.cohort,
                population=self.structure.constrain_population(vector),
                num_draws=num_draws,
                seed=generator,
                refine=refine,
                structure=self.structure,
                before=before,
                max_chains=0 if quiet else LAST_STEPS.max_chains,
            )

    def objective(self, likelihood: Likelihood) -> Callable[[Tensor], Tensor]:
        """The log likelihood of all individuals (and the log prior) of an unconstrained vector."""

        def value(vector: Tensor) -> Tensor:
            population = self.structure.constrain_population(vector)
            return likelihood(population).sum() + self._log_prior(population, vector)

        return value

    def _log_prior(self, population: Population, vector: Tensor) -> Tensor:
        if self.criterion == "maximum likelihood":
            return torch.zeros((), dtype=torch.float64)
        log_prior = self.structure.log_prior(self.cohort, population)
        if self.criterion == "posterior mode":
            log_prior = log_prior + self.structure.log_abs_det(vector)
        return log_prior

    def vanishing(self, likelihood: Likelihood, vector: Tensor) -> tuple[Tensor, Tensor]:
        r"""Which coordinates only say how little the individual parameters, or the narrowest
        combination of them, vary.

        If neither half nor twice that standard deviation makes the data of any individual more or
        less likely, it cannot be told from zero. The coordinates that it hangs on are then held, at
        about the largest value that cannot: draws that are narrower pin the mean.

        Returns:
            Which, and the move that doubles the standard deviation of the first that can still be
            larger (several coordinates may hang on one); shape ``(population,)`` each.
        """
        # The same individuals in every round, picked at random: a table may be sorted by arm.
        structure, few = self.structure, self.part(MAX_SPREAD, make_generator(self.seed)).cohort

        def deviations(at: Tensor) -> Tensor:
            population, same = structure.constrain_population(at), make_generator(self.seed)
            draws = structure.draw_individuals(few, population, NUM_SPREAD, same)
            return draws - draws.mean(0)

        here = deviations(vector).flatten(0, 1).nan_to_num(0.0, 0.0, 0.0)
        sd = here.std(0).clamp(min=1e-300)
        correlation = torch.corrcoef((here / sd).T).reshape(len(sd), -1).nan_to_num(0.0)
        axes = torch.linalg.eigh(correlation).eigenvectors
        axes = torch.cat([torch.eye(len(sd), dtype=axes.dtype), axes[:, :1]], 1) / sd.unsqueeze(-1)

        def log_sd(at: Tensor) -> Tensor:  # of each parameter, and of the narrowest combination
            return (deviations(at).flatten(0, 1) @ axes).std(0).log()

        held, wider = torch.zeros(len(vector), dtype=torch.bool), torch.zeros_like(vector)
        with torch.no_grad():
            known = likelihood.log_weights(structure.constrain_population(vector))
            for j, step in enumerate(torch.eye(len(vector), dtype=torch.float64)):
                slope = (log_sd(vector + 0.1 * step) - log_sd(vector - 0.1 * step)) / 0.2
                steepest = slope[slope.abs().argmax()]
                if abs(float(steepest)) > LEAST_SLOPE:
                    size = math.log(2) / steepest * step
                    fewer, less = self._change(likelihood, vector - size, known)
                    more, moved = self._change(likelihood, vector + size, known)
                    held[j] = abs(fewer) < 1 and more < 1 and less < CALM
                    if held[j] and more > MAY_COST and moved < CALM and not wider.any():
                        wider = size
        return held, wider

    def _change(self, likelihood: Likelihood, at: Tensor, known: Tensor) -> tuple[float, float]:
        """Change of the log likelihood in units of what counts as none, and the usual change of an
        individual.
        """
        there = likelihood.log_weights(self.structure.constrain_population(at))
        change, error = log_mean_difference(there, known)
        slack = FLAT + 2 * float(error.pow(2).sum().sqrt())
        return float(change.sum()) / slack, float(change.abs().median())

    def ascend(
        self,
        individuals: IndividualPosteriors,
        vector: Tensor,
        held: Tensor,
        rough: bool = False,
        last: Ascent | None = None,
    ) -> Ascent:
        """Maximise on fixed draws, which were made at ``vector``, as far as they are to be trusted:
        until they have lost most of their effective number, and an expanded likelihood not far from
        where it was expanded. The curvature of the last ascent is where this one begins. A rough
        ascent stops early, and does not look for variances that vanish; those found before stay
        held.
        """
        likelihood = make_likelihood(individuals, self.scale, rough)
        objective = self.objective(likelihood)
        with torch.no_grad():
            before = float(objective(vector))
            log_ess = likelihood.moments(individuals.population)[1]
        expanded = isinstance(likelihood, ExpandedLikelihood)
        shared = self.structure.coordinates(self.structure.shared) & torch.tensor(expanded)
        penalty = 10.0 * len(self.cohort)

        def within(x: Tensor) -> Tensor:
            population = self.structure.constrain_population(x)
            found, left = likelihood.moments(population)
            lost = (log_ess - left).nan_to_num(0.0, 0.0, 0.0).mean()
            move = ((x - vector) / self.scale)[shared].abs()
            outside = (lost - LOST).relu().pow(2) + (move - TRUST).relu().pow(2).sum()
            total = found.sum() - penalty * outside
            return total + self._log_prior(population, x)

        wider = torch.zeros_like(vector)
        if not rough and self.criterion != "posterior mode":  # which has a proper one
            vanishing, wider = self.vanishing(likelihood, vector)
            held = held | vanishing
        free = ~held

        def of_free(x: Tensor) -> Tensor:
            return within(vector.masked_scatter(free, x))

        known = last is not None and bool((last.held == held).all())
        found = maximize(
            of_free,
            vector[free],
            scale=self.scale[free],
            max_iterations=50 if rough else 200,
            curvature=last.optimum.curvature if last is not None and known else None,
        )
        optimum = found._replace(vector=vector.masked_scatter(free, found.vector))
        return Ascent(optimum, likelihood, optimum.value - before, held, wider)

    def climb(self, vector: Tensor, held: Tensor, num_draws: int, seed: int) -> Optimum:
        """Rounds of drawing and maximising, the end scored on fresh draws."""
        generator, individuals = make_generator(seed), None
        # At a population far off, the guide's own draws say enough of where to go.
        raw = self.draw(vector, num_draws, generator, refine=False)
        optimum = self.ascend(raw, vector, held, rough=True).optimum
        if math.isfinite(optimum.value):
            move = (optimum.vector - vector) / self.scale
            vector = vector + move.clamp(-FIRST_MOVE, FIRST_MOVE) * self.scale
        for _ in range(START_ROUNDS):
            individuals = self.draw(vector, num_draws, generator, individuals)
            ascent = self.ascend(individuals, vector, held, rough=True)
            optimum = ascent.optimum
            if not math.isfinite(optimum.value):
                return optimum
            vector = optimum.vector
            if ascent.gain < START_GAIN:
                break
        fresh = self.draw(vector, num_draws, generator, individuals)
        value = float(fresh.estimate.log_mean.sum())
        value += float(self._log_prior(self.structure.constrain_population(vector), vector))
        return optimum._replace(value=value if math.isfinite(value) else -math.inf)


def locate_population(
    search: Search,
    *,
    num_starts: int = 4,
    num_draws: int = 200,
    fixed: Population | None = None,
    seed: int | Generator = 0,
) -> Optimum:
    r"""Find the neighbourhood of the best population from a few draws.

    Every start is a population drawn from the prior. The guide's draws under its shared parameters,
    weighted by the model, already say where the population is; a few draws around there settle it.
    Of a large cohort, individuals picked at random stand for all; of a very large one, more of them
    then lead on from the best start.
    Under ``joblib.parallel_config`` the starts run in parallel; what comes out is the same.

    Args:
        search: The search; what follows from the result goes on with the same one.
        num_starts: Number of starts; the best on fresh draws is returned.
        num_draws: Draws per individual.
        fixed: Values of sites that are held.
        seed: Seed or generator.

    Raises:
        FitError: No start leads to a finite likelihood.
    """
    generator, structure = make_generator(seed), search.structure
    few = search.part(MAX_LOCATED, generator)
    starts = structure.draw_populations(few.cohort, num_starts, generator)
    held = structure.coordinates(fixed or {})
    found: list[Optimum] = run_each(
        few.climb,
        [
            (
                structure.unconstrain_population(start | dict(fixed or {})),
                held,
                num_draws,
                fork_seed(generator),
            )
            for start in starts
        ],
    )
    best = max(found, key=lambda optimum: optimum.value)
    if len(search.cohort) >= MANY and math.isfinite(best.value):
        more = search.part(MAX_SETTLED, generator)
        best = more.climb(best.vector, held, num_draws, fork_seed(generator))
    if not math.isfinite(best.value):
        raise FitError(
            f"None of {num_starts} starts has a finite likelihood.",
            "data that the model can produce under its prior.",
            "check units and priors, and `plots.individual_fits`; or pass `start=`.",
        )
    return best
