"""sbi's neural posterior estimator (spline flow) for a time budget, scored at every checkpoint.

Runs in an environment with sbi; reads and writes npz. The network is sbi's own with its defaults
(NSF, 50 hidden units, 5 transforms, 10 bins, z-scoring), and so are Adam, batches of 200 and
clipping at 5; the loop is written out so that it can stop by the clock and see fresh simulations.
"""

import argparse
import json
import time

import numpy as np
import torch
from sbi.neural_nets import posterior_nn


def score(network, data, out, minutes):
    network.eval()
    with torch.no_grad():
        x = torch.tensor(data["x_val"])
        rows = torch.arange(len(x)).split(1000)
        theta = torch.tensor(data["theta_val"])
        true = torch.cat([network.log_prob(theta[r][None], x[r])[0] for r in rows])
        ref, x_ref = torch.tensor(data["theta_ref"]), torch.tensor(data["x_ref"])
        log_q = torch.cat(
            [network.log_prob(ref[:, r], x_ref[r]) for r in torch.arange(len(x_ref)).split(500)], 1
        )
        draws = torch.cat(
            [network.sample((1000,), x_ref[r]) for r in torch.arange(len(x_ref)).split(100)], 1
        )
    np.savez(out.format(minutes), true=true, ref=log_q, mean=draws.mean(0), sd=draws.std(0))
    network.train()


parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("out")
parser.add_argument("--minutes", type=float, nargs="+", default=[1.0])
parser.add_argument("--learning-rate", type=float, default=5e-4)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)
data = dict(np.load(arguments.data))
theta, x = torch.tensor(data["theta"]), torch.tensor(data["x"])
begin = time.perf_counter()
network = posterior_nn("nsf")(theta[:20_000], x[:20_000])
optimizer = torch.optim.Adam(network.parameters(), lr=arguments.learning_rate)
network.train()
step, used, size, times = 0, 0.0, 200, []
for minutes in sorted(arguments.minutes):
    resumed = time.perf_counter() if times else begin
    while used + time.perf_counter() - resumed < 60 * minutes:
        start = step * size % (len(theta) - size)
        optimizer.zero_grad()
        network.loss(theta[start : start + size], x[start : start + size]).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
    used += time.perf_counter() - resumed
    times.append(minutes)
    score(network, data, arguments.out, f"{minutes:g}")
    print(
        json.dumps(
            {
                "minutes": minutes,
                "simulations": min(step * size, len(theta)),
                "steps": step,
                "ms_per_step": 1e3 * used / step,
            }
        ),
        flush=True,
    )
