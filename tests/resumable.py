"""A small training in a process of its own: ``python -m tests.resumable folder output``."""

import argparse
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import torch

import pyro_amortized as pa
from pyro_amortized.training import simulation_plan as plan
from tests.exact import linear_cohort, linear_program


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the run is kept, and taken up")
    parser.add_argument("output", type=Path, help="where the guide is saved")
    parser.add_argument("--num-simulations", type=int, default=6000)
    parser.add_argument("--max-epochs", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # A shell that runs the tests in the background ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    plan.SETTINGS = replace(plan.SETTINGS, shard_size=1024)
    options = pa.TrainingOptions(
        max_epochs=arguments.max_epochs, batch_size=128, checkpoint_seconds=0.0
    )
    guide = pa.train(
        linear_program,
        linear_cohort(),
        num_simulations=arguments.num_simulations,
        seed=3,
        folder=arguments.folder,
        options=options,
        progress=False,
    )
    guide.save(arguments.output)


if __name__ == "__main__":
    main()
