"""A training that takes a second."""

import pyro_amortized as pa
from tests.exact import linear_program

QUICK = pa.TrainingOptions(max_epochs=2, batch_size=128, checkpoint_seconds=0.0)


def train(linear, folder=None, **more):
    settings = {"num_simulations": 1000, "seed": 1, "options": QUICK, "progress": False} | more
    return pa.train(linear_program, linear, folder=folder, **settings)
