"""BayesFlow's coupling flow for a time budget: flat inputs, or its time-series network.

Runs in an environment with bayesflow and jax; reads and writes npz. Coupling flow, standardisation
of parameters and (flat) inputs, Adam with clipping at 1.5 and the warm-up and cosine of the workflow
are BayesFlow's defaults; the schedule follows the clock, so that it ends at the budget. Batches of
256 instead of 32: at 32 the same budget sees an eighth of the data.
"""

import argparse
import json
import math
import os
import time

os.environ["KERAS_BACKEND"] = "jax"
import bayesflow as bf
import keras
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("out")
parser.add_argument("--minutes", type=float, default=1.0)
parser.add_argument("--learning-rate", type=float, default=5e-4)
parser.add_argument(
    "--series", action="store_true", help="TimeSeriesNetwork on values, indicators, times"
)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()
keras.utils.set_random_seed(arguments.seed)
data = dict(np.load(arguments.data))
BATCH, BATCHES = 256, 200


def inputs(x, theta):
    if not arguments.series:
        return {"theta": theta, "x": x}
    num, width = len(x), len(data["times"])
    clock = np.broadcast_to(data["times"] / data["times"].max(), (num, width))
    series = np.stack([x[:, :width], x[:, width : 2 * width], clock.astype(x.dtype)], -1)
    return {"theta": theta, "x": series} | (
        {"more": x[:, 2 * width :]} if x.shape[1] > 2 * width else {}
    )


more = arguments.series and data["x"].shape[1] > 2 * len(data["times"])
workflow = bf.BasicWorkflow(
    inference_network=bf.networks.CouplingFlow(),
    summary_network=bf.networks.TimeSeriesNetwork() if arguments.series else None,
    inference_variables=["theta"],
    summary_variables=["x"] if arguments.series else None,
    inference_conditions=["more"] if more else (None if arguments.series else ["x"]),
    standardize=["inference_variables"]
    if arguments.series
    else ["inference_variables", "inference_conditions"],
)
begin, budget = time.perf_counter(), 60 * arguments.minutes


class Clock(keras.callbacks.Callback):
    """Warm-up over 5 % and cosine to zero, by the clock; stop at the budget."""

    def on_epoch_begin(self, epoch, logs=None):
        share = min(1.0, (time.perf_counter() - begin) / budget)
        warm = min(1.0, 0.1 + 0.9 * share / 0.05)
        rate = arguments.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))
        self.model.optimizer.learning_rate = max(rate, 1e-9)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs = epoch + 1
        if time.perf_counter() - begin >= budget:
            self.model.stop_training = True


workflow.optimizer = keras.optimizers.Adam(arguments.learning_rate, clipnorm=1.5)
pool = inputs(data["x"], data["theta"])
clock = Clock()


class Short(keras.utils.PyDataset):
    """The same data in epochs of 200 batches."""

    position, batch_size, num_batches = 0, BATCH, BATCHES

    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        start = self.position * BATCH % (len(data["theta"]) - BATCH)
        self.position += 1
        rows = slice(start, start + BATCH)
        return workflow.adapter({name: x[rows] for name, x in pool.items()}, stage="training")


workflow._fit(Short(), 10**6, "online", True, None, callbacks=[clock], verbose=0)
used = time.perf_counter() - begin
ref = data["theta_ref"]
true = workflow.log_prob(data=inputs(data["x_val"], data["theta_val"]))
log_q = np.stack([workflow.log_prob(data=inputs(data["x_ref"], t)) for t in ref])
conditions = {n: v for n, v in inputs(data["x_ref"], ref[0]).items() if n != "theta"}
draws = workflow.sample(num_samples=1000, conditions=conditions)["theta"]
np.savez(
    arguments.out.format(f"{arguments.minutes:g}"),
    true=true,
    ref=log_q,
    mean=draws.mean(1),
    sd=draws.std(1),
)
steps = clock.epochs * BATCHES
print(
    json.dumps(
        {
            "minutes": arguments.minutes,
            "simulations": min(steps * BATCH, len(data["theta"])),
            "steps": steps,
            "ms_per_step": 1e3 * used / steps,
        }
    ),
    flush=True,
)
