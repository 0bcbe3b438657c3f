"""Trainings that take a second."""

from functools import cache

import pyro_amortized as pa
from pyro_amortized.guide.default_distribution import default_training_distribution
from pyro_amortized.training.time_budgets import budget_seconds
from tests.exact import linear_cohort, linear_program

QUICK = pa.TrainingOptions(max_epochs=2, batch_size=128, checkpoint_seconds=0.0)

# Networks that learn posteriors of two or three parameters as well as the default ones do, in two
# thirds of the time.
NETWORKS = pa.Networks(width=64, layer_width=32, num_layers=1)


@cache
def training_distribution():
    """The default one of the linear model, made once: most of the time of so small a training."""
    cohort = linear_cohort()
    structure = pa.read_structure(linear_program, cohort)
    return default_training_distribution(structure, cohort, 0, num_draws=200)


def train(linear, folder=None, **more):
    settings = {"num_simulations": 1000, "seed": 1, "options": QUICK, "progress": False}
    settings |= {"networks": NETWORKS, "training_distribution": training_distribution()}
    return pa.train(linear_program, linear, folder=folder, **(settings | more))


def counted(train, num_simulations, max_epochs):
    """``train`` on a number of simulations wherever its caller gives it a time.

    The result then depends neither on the speed of the machine nor on its load.
    """

    def small(*arguments, budget=None, **settings):
        if budget is not None:
            assert budget_seconds(budget) > 0
            settings["num_simulations"] = num_simulations
            settings["options"] = pa.TrainingOptions(max_epochs=max_epochs)
        return train(*arguments, **settings)

    return small


def capped(function, name, most):
    """A function whose argument ``name`` is at most a number."""

    def small(*arguments, **settings):
        if name in settings:
            settings[name] = min(settings[name], most)
        return function(*arguments, **settings)

    return small


def unarranged(savefig):
    """``Figure.savefig`` without a layout of the panels, which takes as long as the drawing."""

    def plain(figure, *arguments, **settings):
        figure.set_layout_engine("none")
        return savefig(figure, *arguments, **settings)

    return plain
