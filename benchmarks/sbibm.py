r"""Reference posteriors of the sbibm benchmark: classifier accuracy of raw and corrected draws.

    python benchmarks/sbibm.py --sklearn PYTHON [--tasks ...] [--simulations 10000 100000] [--small]

PYTHON is the interpreter of an environment with scikit-learn (sbi's has it). The simulators are
rewritten as Pyro programs; the reference draws lie in ``../shared/references/sbibm``. Published: NPE
with a spline flow, mean over ten observations (Lueckmann et al. 2021).
"""

import argparse
import json
import math
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

import pyro_amortized as pa
from pyro_amortized import Cohort, Series
from pyro_amortized.guide.training_distributions import TrainingDistribution

REFERENCES = Path(__file__).parents[2] / "shared" / "references" / "sbibm"
PUBLISHED = {
    "two_moons": (0.606, 0.542),
    "slcp": (0.901, 0.831),
    "gaussian_linear": (0.552, 0.506),
    "sir": (0.680, 0.585),
    "lotka_volterra": (0.997, 0.981),
}


class Crescent(TorchDistribution):
    """Two moons: a noisy half circle, shifted."""

    arg_constraints: dict = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, shift):
        self.shift = shift
        super().__init__(shift.shape[:-1], shift.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Crescent(self.shift.expand(*batch_shape, 2))

    def sample(self, sample_shape=torch.Size()):  # noqa: B008
        shape = self._extended_shape(sample_shape)[:-1]
        angle = math.pi * (torch.rand(shape, dtype=self.shift.dtype) - 0.5)
        radius = 0.1 + 0.01 * torch.randn(shape, dtype=self.shift.dtype)
        return self.shift + torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], -1)

    def log_prob(self, value):
        x, y = (value - self.shift).unbind(-1)
        radius = ((x - 0.25) ** 2 + y**2).sqrt()
        inside = dist.Normal(0.1, 0.01).log_prob(radius) - (math.pi * radius).log()
        return torch.where(x > 0.25, inside, -torch.inf)


def runge_kutta(slope, state, times, num_steps):
    """States at the times, shape (*, time, state)."""
    states = [state]
    for gap in np.diff(times):
        h = float(gap) / num_steps
        for _ in range(num_steps):
            a = slope(state)
            b = slope(state + h / 2 * a)
            c = slope(state + h / 2 * b)
            d = slope(state + h * c)
            state = state + h / 6 * (a + 2 * b + 2 * c + d)
        states.append(state)
    return torch.stack(states, -2)


def uniform(z, low, high):
    return low + (high - low) * torch.special.ndtr(z)


def two_moons(theta):
    a, b = theta.unbind(-1)
    return Crescent(torch.stack([-(a + b).abs(), b - a], -1) / math.sqrt(2))


def slcp(theta):
    mean = theta[..., :2].unsqueeze(-2).expand(*theta.shape[:-1], 4, 2)
    s1, s2, rho = theta[..., 2] ** 2, theta[..., 3] ** 2, theta[..., 4].tanh()
    first, second, cross = s1**2 + 1e-6, s2**2 + 1e-6, rho * s1 * s2
    low = first.sqrt()
    below = cross / low
    zero = torch.zeros_like(low)
    rows = [torch.stack([low, zero], -1), torch.stack([below, (second - below**2).sqrt()], -1)]
    scale_tril = torch.stack(rows, -2).unsqueeze(-3)
    return dist.MultivariateNormal(mean, scale_tril=scale_tril.expand(*mean.shape, 2)).to_event(1)


def gaussian_linear(theta):
    return dist.Normal(theta, math.sqrt(0.1)).to_event(1)


SIR_TIMES = 17.0 * np.arange(10)
LV_TIMES = 2.1 * np.arange(10)


def sir(theta):
    beta, gamma = theta.unbind(-1)

    def slope(x):
        s, i = x.unbind(-1)
        infected = beta * s * i
        return torch.stack([-infected, infected - gamma * i], -1)

    start = torch.tensor([1 - 1e-6, 1e-6]).expand(*theta.shape[:-1], 2)
    share = runge_kutta(slope, start, SIR_TIMES, 68)[..., 1].clamp(1e-12, 1 - 1e-12)
    return dist.Binomial(1000, share).to_event(1)


def lotka_volterra(theta):
    alpha, beta, gamma, delta = theta.unbind(-1)

    def slope(log):
        x, y = log.exp().unbind(-1)
        return torch.stack([alpha - beta * y, delta * x - gamma], -1)

    start = torch.tensor([30.0, 1.0]).log().expand(*theta.shape[:-1], 2)
    return dist.LogNormal(runge_kutta(slope, start, LV_TIMES, 80), 0.1).to_event(2)


@dataclass(frozen=True)
class Task:
    """A simulator, its parameters as functions of standard normal ones, and the layout of its
    data.
    """

    distribution: object
    size: int
    to_theta: object
    shape: tuple[int, ...]
    swap: bool = False

    def read(self, numbers):
        data = torch.as_tensor(numbers, dtype=torch.float64)
        if self.swap:  # all of the first channel, then all of the second
            return data.reshape(-1, *self.shape[::-1]).transpose(-1, -2)
        return data.reshape(-1, *self.shape)

    def model(self, cohort):
        with pyro.plate("individual", len(cohort)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.size), 1.0).to_event(1))
            pyro.sample("y", self.distribution(self.to_theta(z)), obs=cohort["y"].values)

    def cohort(self, values):
        num, length = values.shape[:2]
        times = torch.arange(length, dtype=torch.float64).expand(num, -1)
        return Cohort({"y": Series(times, values)})


def log_normal(mean, sd):
    mean, sd = torch.tensor(mean).double(), torch.tensor(sd).double()
    return lambda z: (mean + sd * z).exp()


def box(low, high):
    return lambda z: uniform(z, low, high)


def scaled(sd):
    return lambda z: sd * z


LV = log_normal([-0.125, -3.0, -0.125, -3.0], [0.5] * 4)
TASKS = {
    "two_moons": Task(two_moons, 2, box(-1.0, 1.0), (2,)),
    "slcp": Task(slcp, 5, box(-3.0, 3.0), (4, 2)),
    "gaussian_linear": Task(gaussian_linear, 10, scaled(math.sqrt(0.1)), (10,)),
    "sir": Task(sir, 2, log_normal([math.log(0.4), math.log(0.125)], [0.5, 0.2]), (10,)),
    "lotka_volterra": Task(lotka_volterra, 4, LV, (10, 2), swap=True),
}


def observed(name, observations, num_draws):
    """Observations of a task, and the draws of their reference posteriors."""
    folders = [REFERENCES / name / str(j) for j in range(1, observations + 1)]
    read = TASKS[name].read
    data = torch.cat([read(pd.read_csv(f / "observation.csv").to_numpy()) for f in folders])
    reference = [
        pd.read_csv(f / "reference_posterior_samples.csv.bz2").to_numpy()[:num_draws]
        for f in folders
    ]
    return data, reference


def run(name, num_simulations, observations, num_draws, options):
    """Pairs of (reference, ours) draws, raw and corrected, per observation, and notes."""
    task = TASKS[name]
    layout = task.cohort(torch.ones(50, *task.shape, dtype=torch.float64))
    unit = torch.eye(task.size, dtype=torch.float64)
    distribution = TrainingDistribution.normal(torch.zeros_like(unit[0]), unit)
    begin = time.perf_counter()
    guide = pa.train(
        task.model,
        pa.Resample(layout, lambda cohort, generator: cohort),
        seed=1,
        num_simulations=num_simulations,
        options=options,
        training_distribution=distribution,
        progress=False,
    )
    seconds = time.perf_counter() - begin
    data, reference = observed(name, observations, num_draws)
    cohort, none = task.cohort(data), torch.zeros(len(data), 0)
    torch.manual_seed(1)
    posterior = guide.posterior.condition(cohort, none)
    raw = posterior.sample((num_draws,))

    drawn = pa.sample_individuals(
        guide.model, cohort, {}, guide=guide, num_draws=8 * num_draws, seed=2
    )
    corrected = drawn.resampled(num_draws, 2)
    history = guide.history
    notes = {
        "seconds": round(seconds, 1),
        "steps": history.num_steps,
        "nll": min(history.validation_loss),
        "ess": drawn.estimate.ess.round().long().tolist(),
        "advice": history.advice,
        "stopped": history.stopped,
    }
    pairs = [(r, task.to_theta(raw[:, j]).numpy()) for j, r in enumerate(reference)]
    pairs += [(r, task.to_theta(corrected[:, j]).numpy()) for j, r in enumerate(reference)]
    return pairs, notes


def c2st(python, pairs):
    """Classifier accuracies, by scikit-learn in another environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.npz"
        np.savez(
            path,
            **{f"{n}{j}": x for j, p in enumerate(pairs) for n, x in zip("ab", p, strict=True)},
        )
        command = [python, str(Path(__file__).parent / "peers" / "c2st.py"), str(path)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(line) for line in text.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sklearn", help="interpreter of an environment with scikit-learn")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--simulations", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--observations", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    options = pa.TrainingOptions(max_epochs=2 if arguments.small else None)
    if arguments.small:
        arguments.tasks, arguments.simulations = ["two_moons"], [300]
        arguments.observations, arguments.draws = 1, 100
    if not REFERENCES.is_dir():
        raise SystemExit("the reference posteriors (shared/references/sbibm) are not here")
    torch.set_num_threads(1)
    table = {}
    for name in arguments.tasks:
        for num in arguments.simulations:
            pairs, notes = run(name, num, arguments.observations, arguments.draws, options)
            row = dict(notes)
            if arguments.sklearn:
                accuracies = c2st(arguments.sklearn, pairs)
                half = len(accuracies) // 2
                row |= {
                    "raw": float(np.mean(accuracies[:half])),
                    "corrected": float(np.mean(accuracies[half:])),
                    "all": accuracies,
                }
            published = dict(zip((10_000, 100_000), PUBLISHED[name], strict=True)).get(num)
            table.setdefault(name, {})[str(num)] = row | {"published_npe": published}
            print(
                f"{name:16}{num:8,} raw {row.get('raw', math.nan):.3f} corrected {row.get('corrected', math.nan):.3f} published NPE {published} | {notes}",
                flush=True,
            )
    print(json.dumps(table))


if __name__ == "__main__":
    main()
