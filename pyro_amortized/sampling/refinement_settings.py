r"""Settings of the refinement of single individuals.

"Decision" refers to the pages in ``docs/decisions``.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple


class Round(NamedTuple):
    """One round of the refinement of individuals whose weights are poor.

    Args:
        num_components: Components of the mixture.
        num_draws_factor: Draws that the mixture is fitted to, as a multiple of the final draws.
        min_efficiency: Effective share of the draws below which an individual takes part.
    """

    num_components: int
    num_draws_factor: int
    min_efficiency: float


@dataclass(frozen=True)
class RefinementSettings:
    r"""When an individual is refined, and how.

    Args:
        pilot_share: Draws of the pilot, as a share of the final draws.
        min_pilot_draws: Fewest draws of the pilot; Pareto k needs 25.
        max_rows: Draws times individuals that are sampled together; limits the memory.
        min_pilot_efficiency: Effective share of the draws of the pilot from which the guide is used
            without refinement. The pilot is small and therefore has to be better than the final
            draws.
        min_efficiency: The same of the final draws.
        min_known_efficiency: The same for a mixture that was fitted at another population. A little
            lower, so that a small move of the population does not cause a new fit.
        min_effective_pilot: A pilot with fewer effective draws does not determine a covariance. The
            mixture then starts from the modes of the target (decision 030).
        rounds: Later rounds. One component costs little and is used early; five components are for
            individuals that would fail otherwise.
        max_components: Components that a refinement has room for.
        guide_share: Part of the guide in the defensive mixture (decision 028).
        population_share: Part of the population in it, which bounds the weights.
        stretched_share: Part of a stretched copy of the mixture, if it started from modes. Together
            with the part of the guide it reduced the error of the log likelihood of 50 cells from
            0.35 to 0.1 (decision 030).
        num_served_components: Components for an individual whose draws the guide or the population
            served, where a mixture shall make further ones.
        num_population_draws: Draws from the population that give its standard deviations.
        num_guide_draws: Draws that the mixture in the shape of the guide is fitted to. Its density
            costs a fiftieth of that of the guide itself (decision 029).
        num_guide_components: Components of this mixture.
        min_mode_draws: Draws that a mixture around modes is fitted to once.
        min_mode_efficiency: Effective share of its draws below which the places around the modes
            are explored by differential evolution, which costs some hundred evaluations.
        widening_factor: Explored mixtures are fitted once more to draws of themselves, of a copy
            that is wider by this factor and of a stretched copy, a quarter of the draws each;
            halves the error of the log likelihood (decision 031).
        min_located_draws: Fewest draws that such a mixture is fitted to.
        draws_per_evolution_step: Differential evolution takes one step for so many draws, within
            the limits below.
        min_evolution_steps: Fewest steps of differential evolution.
        max_evolution_steps: Most steps; zero leaves it out.
        unreliable_factor: Factor of the effective draws of weights with a Pareto k above the limit,
            when two sets of draws are compared.
    """

    pilot_share: float = 0.1
    min_pilot_draws: int = 100
    max_rows: int = 400_000
    min_pilot_efficiency: float = 0.8
    min_efficiency: float = 0.5
    min_known_efficiency: float = 0.45
    min_effective_pilot: float = 20.0
    rounds: tuple[Round, ...] = (Round(1, 1, 0.6), Round(3, 2, 0.5), Round(5, 4, 0.3))
    max_components: int = 5
    guide_share: float = 0.05
    population_share: float = 0.05
    stretched_share: float = 0.1
    num_served_components: int = 2
    num_population_draws: int = 50
    num_guide_draws: int = 200
    num_guide_components: int = 3
    min_mode_draws: int = 100
    min_mode_efficiency: float = 0.3
    widening_factor: float = 2.5
    min_located_draws: int = 600
    draws_per_evolution_step: int = 10
    min_evolution_steps: int = 60
    max_evolution_steps: int = 200
    unreliable_factor: float = 0.01


REFINEMENT = RefinementSettings()
# For draws far from the result: mixtures around the modes are adapted once and not explored.
ROUGH_REFINEMENT = replace(REFINEMENT, rounds=(Round(1, 1, 0.3),), max_evolution_steps=0)


class Effort(NamedTuple):
    """How much is done for individuals whose weights are poor.

    Args:
        settings: How they are refined; None: not at all.
        max_chains: Largest number of individuals that get a chain of NUTS. A chain takes about
            14 s with 180 times, a repeated refinement 40 ms (decision 032).
        search_modes: Whether modes that the draws have missed are searched for.
    """

    settings: RefinementSettings | None = REFINEMENT
    max_chains: int = 3
    search_modes: bool = True


FULL_EFFORT = Effort()
# For draws that are not the result.
NO_CHAINS = Effort(max_chains=0)
ROUGH_EFFORT = Effort(ROUGH_REFINEMENT, max_chains=0, search_modes=False)
