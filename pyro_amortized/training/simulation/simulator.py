r"""Training data from the user's own program.

Individual parameters are drawn from a training distribution :math:`\tilde p(\phi)`, shared
parameters c from their prior, observations from the program itself, over a design of times, doses,
covariates and missingness:

.. math:: u \sim \mathcal N(m, S S^\top), \qquad c \sim p(c), \qquad y \sim p(y \mid \phi(u), c).

By default m and S are the moments of the individual parameters under the prior predictive, in
unconstrained coordinates, inflated: wide enough for whatever population the data may ask for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ...cohort import Cohort, Design, end_to_end
from ...errors import TrainingError
from ...guide.training_distributions import TrainingDistribution
from ...missing import Remaskable
from ...model import ModelStructure
from ...runtime.user_warnings import warn_user

CALL_SIZE = 16_384
LOOP_SIZE = 128


@dataclass(frozen=True, eq=False)
class TrainingSet:
    r"""Simulated individuals.

    Args:
        cohort: Designs with simulated values.
        unconstrained: Individual parameters, shape ``(individual, latent)``.
        shared: Shared parameters, unconstrained, shape ``(individual, shared)``.
        num_failed: Simulations that were not finite; they are not among the individuals.
    """

    cohort: Cohort
    unconstrained: Tensor
    shared: Tensor
    num_failed: int

    def __len__(self) -> int:
        return len(self.cohort)


@dataclass(frozen=True, eq=False)
class Simulator:
    r"""Simulates any shard of a training set, in any order and any process: shard k depends on the
    seed and k alone.

    Args:
        structure: The program.
        design: Where times, doses, covariates and missingness come from. Of a design that tells
            what goes missing apart (:class:`~pyro_amortized.missing.Remaskable`), the complete
            form is simulated.
        distribution: Where individual and shared parameters come from.
        seed: Seed of all shards.
        num_noise: Observations drawn per individual and shared parameters: the program runs once,
            its observation laws are sampled this many times.
    """

    structure: ModelStructure
    design: Design
    distribution: TrainingDistribution
    seed: int
    num_noise: int = 1

    def __call__(self, shard: int, num_simulations: int) -> TrainingSet:
        """Shard number ``shard`` (-1: the validation set), without the simulations that are not
        finite.
        """
        generator = shard_generator(self.seed, shard)
        structure, sizes = self.structure, []
        for start in range(0, num_simulations, CALL_SIZE):
            sizes.append(min(CALL_SIZE, num_simulations - start))
        parts = [self._call(structure, size, generator) for size in sizes]
        return end_to_end_sets(parts)

    def _call(self, structure: ModelStructure, size: int, generator: Generator) -> TrainingSet:
        design = self.design
        plan = (
            design.complete(size, generator)
            if isinstance(design, Remaskable)
            else design(size, generator)
        )
        latent = self.distribution.individual.draw(plan, 1, generator)[0]
        shared = self.distribution.shared.draw(size, generator)
        if structure.layout is None:
            shared = shared[::LOOP_SIZE].repeat_interleave(LOOP_SIZE, 0)[:size]
        cohorts, failed = structure.simulate_repeatedly(
            plan, latent, shared, structure.initial_population(), generator, self.num_noise
        )
        kept = (~failed).nonzero()[:, 0]
        if not len(kept):
            check_failures(size, size)
        sets = [TrainingSet(c[kept], latent[kept], shared[kept], 0) for c in cohorts]
        whole = end_to_end_sets(sets)
        return TrainingSet(whole.cohort, whole.unconstrained, whole.shared, int(failed.sum()))


def shard_generator(seed: int, *place: int) -> Generator:
    """A generator for one place (a shard, a pass) of a seeded run; places are independent."""
    words = np.random.SeedSequence([seed, *(p + 1 for p in place)]).generate_state(2)
    return Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))


def end_to_end_sets(sets: Sequence[TrainingSet]) -> TrainingSet:
    """Lay training sets end to end."""
    if len(sets) == 1:
        return sets[0]
    return TrainingSet(
        end_to_end([s.cohort for s in sets]),
        torch.cat([s.unconstrained for s in sets]),
        torch.cat([s.shared for s in sets]),
        sum(s.num_failed for s in sets),
    )


def simulate_training_set(
    structure: ModelStructure,
    design: Design,
    distribution: TrainingDistribution,
    num_simulations: int,
    *,
    seed: int,
) -> TrainingSet:
    r"""Simulate a training set in large calls of the program.

    Args:
        structure: The program.
        design: Where times, doses, covariates and missingness come from.
        distribution: Where individual and shared parameters come from.
        num_simulations: Number of individuals to simulate.
        seed: Seed.

    Returns:
        The simulations that are finite. How many were not is stated, and announced if more than 1
        %.

    Raises:
        TrainingError: More than half of the simulations are not finite.
    """
    announce_layout(structure)
    found = Simulator(structure, design, distribution, seed)(0, num_simulations)
    check_failures(found.num_failed, num_simulations)
    if isinstance(design, Remaskable):
        masked = design.missing(found.cohort, shard_generator(seed, 0, 0))
        found = TrainingSet(masked, found.unconstrained, found.shared, found.num_failed)
    return found


def announce_layout(structure: ModelStructure) -> None:
    """Warn if simulation has to call the program in a loop."""
    if structure.layout is None:
        warn_user(_slow_message(structure))


def check_failures(num_failed: int, num_simulations: int, announce: bool = True) -> None:
    r"""Say how many simulations were not finite, if more than 1 %.

    Raises:
        TrainingError: More than half of them.
    """
    share = num_failed / num_simulations
    if share > 0.5:
        raise TrainingError(
            f"{num_failed} of {num_simulations} simulations are not finite.",
            "a model that can be simulated under most of its training distribution.",
            "narrow the priors of the population, or pass `training_distribution=`.",
        )
    if announce and share > 0.01:
        warn_user(
            f"{num_failed} of {num_simulations} simulations ({share:.1%}) were not finite and "
            "are not trained on. "
            "Individuals with such parameters are outside the training distribution."
        )


def _slow_message(structure: ModelStructure) -> str:
    names = ", ".join(structure.shared)
    example = structure.shared[0]
    return (
        f"The program cannot be run with one value of {names} per individual, so simulation "
        "calls it once per "
        f"{LOOP_SIZE} individuals, which is slow. Write shared parameters so that they "
        "broadcast over individuals "
        f"and times: `{example}[..., None]` in place of `{example}`, `.unbind(-1)` in place of "
        "`[0]`."
    )
