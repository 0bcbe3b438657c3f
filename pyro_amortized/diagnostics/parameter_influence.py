r"""Does every parameter move the simulated data? By common random numbers: what calibration cannot
see of a simulator that ignores one.
"""

import torch
from torch import Tensor

from ..cohort import Cohort, Design
from ..guide import AmortizedGuide
from ..model import ModelStructure
from ..runtime.random_numbers import fork_seed, make_generator


def influence(
    guide: AmortizedGuide, design: Design, *, num_individuals: int = 200, seed: int = 0
) -> dict[str, float]:
    r"""How far each individual and shared parameter moves the simulated data, by label.

    The same individuals are simulated with the same random numbers and one parameter moved by one
    standard deviation of the training distribution.

    Args:
        guide: The guide; its program and training distribution are used.
        design: Times, doses, covariates.
        num_individuals: Simulated individuals.
        seed: Seed.

    Returns:
        Largest over the series of the root mean square change of what is recorded, in standard
        deviations of all simulated values.
    """
    generator = make_generator(seed)
    structure, training = guide.structure, guide.training_distribution
    plan = design(num_individuals, generator)
    truth = training.individual.draw(plan, 1, generator)[0]
    shared = training.shared.draw(num_individuals, generator)
    noise = fork_seed(generator)

    def run(u: Tensor, c: Tensor) -> Cohort:
        population = structure.initial_population()
        return structure.simulate(plan, u, c, population, make_generator(noise))[0]

    base, found = run(truth, shared), {}
    for j, label in enumerate(structure.latent_names):
        step = torch.zeros_like(truth)
        step[:, j] = truth[:, j].std()
        found[label] = _moved(structure, base, run(truth + step, shared))
    names = [
        n
        for n, x in zip(
            structure.population_names,
            structure.coordinates(structure.shared).tolist(),
            strict=True,
        )
        if x
    ]
    for j, label in enumerate(names):
        step = torch.zeros_like(shared)
        step[:, j] = shared[:, j].std()
        found[label] = _moved(structure, base, run(truth, shared + step))
    return found


def _moved(structure: ModelStructure, base: Cohort, other: Cohort) -> float:
    moves = []
    for name in structure.series:
        both = base[name].observed & other[name].observed
        if not bool(both.any()):
            continue
        x, y = base[name].values[both].double(), other[name].values[both].double()
        spread = (x.quantile(0.9) - x.quantile(0.1)).clamp(min=1e-300) / 2.56
        moves.append(float(((y - x) / spread).clamp(-10, 10).pow(2).mean().sqrt()))
    return max(moves, default=0.0)
