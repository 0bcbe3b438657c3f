"""A small training in a process of its own."""

import json
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

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


def set_up():
    """Make this process ready for a small training."""
    warnings.simplefilter("ignore")
    # A shell that runs the tests in the background ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    plan.SETTINGS = SHARDS


def forked(function, *arguments) -> multiprocessing.Process:
    """A new process that calls a function of a module.

    It is a fork of a process that has imported this module and what an optimizer of torch imports
    when it is made, since the imports take most of the time of so small a training.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def train_apart(folder: Path, output: Path, errors: Path, *sizes: int):
    """:func:`train` in a process of its own; a file holds what ended it."""
    set_up()
    try:
        train(folder, output, *sizes)
    except BaseException:
        errors.write_text(traceback.format_exc())
        sys.exit(1)


def train_together(place: dict[str, str], folder: Path, losses: Path):
    """Three trainings of processes that share the work; the first process writes their losses.

    Args:
        place: Environment of this process among the others.
        folder: Where the second training keeps its simulations. The first one keeps them in memory,
            the third one in a temporary folder of each process.
        losses: The file of the losses.
    """
    set_up()
    os.environ |= place
    distributed.init_process_group("gloo")
    found = []
    for where, shards in (
        (None, SHARDS),
        (folder, SHARDS),
        (None, replace(SHARDS, max_memory=0)),
    ):
        plan.SETTINGS = shards
        history = small.train(linear_cohort(), where, num_simulations=2000, seed=3).history
        found.append([history.training_loss, history.validation_loss])
    if distributed.get_rank() == 0:
        losses.write_text(json.dumps(found))
    distributed.destroy_process_group()
