r"""How far each parameter moves the simulated data.

The same individuals are simulated twice with the same random numbers, the second time with one
parameter :math:`\theta_j` raised by one standard deviation of the training distribution. For
recorded values :math:`y_k` and :math:`y'_k` of the two simulations,

.. math:: d_j = \sqrt{\operatorname{mean}_k \big((y'_k - y_k) / s\big)^2},

with the standard deviation :math:`s` of all simulated values. It is zero for a parameter that the
model ignores. Calibration cannot see that, because the prior of such a parameter is its right
posterior.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...cohort import Cohort, Design
from ...guide import AmortizedGuide
from ...model import ModelStructure
from ...runtime.random_numbers import fork_seed, make_generator


@dataclass(frozen=True)
class InfluenceSettings:
    r"""How the change of the data is measured.

    Args:
        max_change: Largest change of one value that counts, in standard deviations: a single
            diverging simulation must not decide.
        tail: Tail probability of the two quantiles from which the standard deviation of the
            simulated values is estimated, which outliers do not affect.
        quantile_distance: Distance of these quantiles of a normal distribution, in standard
            deviations.
    """

    max_change: float = 10.0
    tail: float = 0.1
    quantile_distance: float = 2.56


DEFAULTS = InfluenceSettings()


def influence(
    guide: AmortizedGuide, design: Design, *, num_individuals: int = 200, seed: int = 0
) -> dict[str, float]:
    r"""How far each individual and each shared parameter moves the simulated data.

    Args:
        guide: The guide; its model and training distribution are used.
        design: Source of times, doses and covariates.
        num_individuals: Number of simulated individuals.
        seed: Seed of the simulations.

    Returns:
        By label of the parameter, the root mean square change of the recorded values when the
        parameter is raised by one standard deviation of the training distribution, in standard
        deviations of all simulated values; the largest over the series.
    """
    generator = make_generator(seed)
    structure, training = guide.structure, guide.training_distribution
    plan = design(num_individuals, generator)
    truth = training.individual.draw(plan, 1, generator)[0]
    shared = training.shared.draw(num_individuals, generator)
    noise_seed = fork_seed(generator)

    def simulate(individual: Tensor, shared: Tensor) -> Cohort:
        population, generator = structure.initial_population(), make_generator(noise_seed)
        return structure.simulate(plan, individual, shared, population, generator)[0]

    unchanged, changes = simulate(truth, shared), {}
    for j, label in enumerate(structure.latent_names):
        changed = simulate(_raised(truth, j), shared)
        changes[label] = _change(structure, unchanged, changed)
    is_shared = structure.coordinates(structure.shared).tolist()
    names = [n for n, x in zip(structure.population_names, is_shared, strict=True) if x]
    for j, label in enumerate(names):
        changed = simulate(truth, _raised(shared, j))
        changes[label] = _change(structure, unchanged, changed)
    return changes


def _raised(values: Tensor, column: int) -> Tensor:
    """Values ``(individual, parameter)`` with one parameter raised by its standard deviation."""
    step = torch.zeros_like(values)
    step[:, column] = values[:, column].std()
    return values + step


def _change(structure: ModelStructure, unchanged: Cohort, changed: Cohort) -> float:
    """Root mean square change of the recorded values, the largest over the series."""
    changes = []
    for name in structure.series:
        both = unchanged[name].observed & changed[name].observed
        if not bool(both.any()):
            continue
        x, y = unchanged[name].values[both].double(), changed[name].values[both].double()
        distance = x.quantile(1 - DEFAULTS.tail) - x.quantile(DEFAULTS.tail)
        sd = distance.clamp(min=1e-300) / DEFAULTS.quantile_distance
        limit = DEFAULTS.max_change
        changes.append(float(((y - x) / sd).clamp(-limit, limit).pow(2).mean().sqrt()))
    return max(changes, default=0.0)
