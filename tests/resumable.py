"""A small training in a process of its own: ``python -m tests.resumable folder output``."""

import argparse
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from pyro_amortized.training import simulation_plan as plan
from tests import small
from tests.exact import linear_cohort

SHARDS = replace(plan.SETTINGS, shard_size=512)


def train(folder: Path, output: Path, num_simulations: int = 3000, max_epochs: int = 3):
    """Train in ``folder``, with a checkpoint after each shard, and save the guide.

    The caller sets ``plan.SETTINGS`` to ``SHARDS``.
    """
    assert plan.SETTINGS is SHARDS
    options = replace(small.QUICK, max_epochs=max_epochs)
    guide = small.train(
        linear_cohort(), folder, num_simulations=num_simulations, seed=3, options=options
    )
    guide.save(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the run is kept, and taken up")
    parser.add_argument("output", type=Path, help="where the guide is saved")
    parser.add_argument("--num-simulations", type=int, default=3000)
    parser.add_argument("--max-epochs", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # A shell that runs the tests in the background ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    plan.SETTINGS = SHARDS
    train(**vars(arguments))


if __name__ == "__main__":
    main()
