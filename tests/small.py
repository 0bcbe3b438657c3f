"""A training that takes a second."""

from functools import cache

import pyro_amortized as pa
from pyro_amortized.guide.training_distributions import default_training_distribution
from tests.exact import linear_cohort, linear_program

QUICK = pa.TrainingOptions(max_epochs=2, batch_size=128, checkpoint_seconds=0.0)


@cache
def training_distribution():
    """The default one of the linear model, made once: most of the time of so small a training."""
    cohort = linear_cohort()
    structure = pa.read_structure(linear_program, cohort)
    return default_training_distribution(structure, cohort, 0, num_draws=200)


def train(linear, folder=None, **more):
    settings = {"num_simulations": 1000, "seed": 1, "options": QUICK, "progress": False}
    settings["training_distribution"] = training_distribution()
    return pa.train(linear_program, linear, folder=folder, **(settings | more))
