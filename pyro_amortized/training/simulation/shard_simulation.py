r"""Training sets simulated with the user's own model.

Individual parameters u and shared parameters c are drawn from the training distribution,
observations from the model itself, over a design of times, doses, covariates and missingness:

.. math:: (u, c) \sim \tilde p(u)\, \tilde p(c), \qquad y \sim p(y \mid \phi(u), c).

The mean and the scale of the distribution that u was drawn from are part of the simulation.

Simulations come in shards. Shard k depends on the seed and on k alone, so shards can be made in
any order and by any process.
"""

from dataclasses import dataclass, replace

from torch import Generator

from ...guide.training_distributions import TrainingDistribution
from ...missing import Remaskable
from ...model import ModelStructure
from ...model.program_simulation import simulate_repeatedly
from .failure_checks import check_failures
from .random_streams import Purpose, random_stream
from .training_sets import TrainingSet, end_to_end_sets


@dataclass(frozen=True)
class RunSizes:
    r"""Number of individuals for which the model is run at once.

    Args:
        batch: Individuals per run, which bounds the memory of a run.
        loop: Individuals per run of a model that takes only one value of the shared parameters;
            they have the same shared parameters.
    """

    batch: int = 16_384
    loop: int = 128


SIZES = RunSizes()


@dataclass(frozen=True, eq=False)
class Simulator:
    r"""Simulates any shard of a training set.

    Args:
        structure: The model.
        design: Where times, doses and covariates come from; its complete form is simulated, before
            anything goes missing.
        distribution: Where individual and shared parameters come from.
        seed: Seed of all shards.
        num_noise: Observations drawn per individual and shared parameters: the model is run once,
            and the distributions of its observations are sampled this many times.
    """

    structure: ModelStructure
    design: Remaskable
    distribution: TrainingDistribution
    seed: int
    num_noise: int = 1

    def __call__(self, shard: int, num_simulations: int) -> TrainingSet:
        """Shard number ``shard``, or the validation set (``random_streams.VALIDATION``), without
        the simulations that are not finite.
        """
        generator = random_stream(self.seed, Purpose.SIMULATION, shard)
        starts = range(0, num_simulations, SIZES.batch)
        sizes = [min(SIZES.batch, num_simulations - start) for start in starts]
        return end_to_end_sets([self._simulate(size, generator) for size in sizes])

    def _simulate(self, size: int, generator: Generator) -> TrainingSet:
        """The finite simulations of one run of the model."""
        structure = self.structure
        plan = self.design.complete(size, generator)
        individual = self.distribution.individual
        priors = individual.gaussians(size, generator)
        latent = individual.draw_with(plan, priors, 1, generator)[0]
        shared = self.distribution.shared.draw(size, generator)
        if structure.layout is None:
            shared = shared[:: SIZES.loop].repeat_interleave(SIZES.loop, 0)[:size]
        population = structure.initial_population()
        cohorts, failed = simulate_repeatedly(
            structure, plan, latent, shared, population, generator, self.num_noise
        )
        rows = (~failed).nonzero()[:, 0]
        if not len(rows):
            check_failures(size, size)
        finite = end_to_end_sets(
            [
                TrainingSet(cohort[rows], latent[rows], shared[rows], priors.take(rows), 0)
                for cohort in cohorts
            ]
        )
        return replace(finite, num_failed=int(failed.sum()))
