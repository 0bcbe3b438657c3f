"""Missing not at random: the model contains the mechanism that decides what is recorded.

Two mechanisms are added to the reversible reaction of conversion.py (k2 known), each as an observed
site ``y_recorded`` of the model. In the first, the number of missing values is floor(11 p), and p
is inferred. In the second, each value is missing with probability logistic(A + b y), and b is
inferred.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.missing import Schedule

NOISE, LOC, SCALE = 0.015, -0.75, 0.25
K2, A = 10**LOC, -1.0


def reaction(log_k1, times):
    k1 = 10 ** log_k1[..., None]
    return k1 / (k1 + K2) * (1 - torch.exp(-(k1 + K2) * times))


class NumberRecorded(dist.TorchDistribution):
    """0/1 patterns of ``num`` places, all that have floor(num p) zeros equally likely."""

    arg_constraints = {"p": constraints.unit_interval}  # noqa: RUF012
    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, p, num, validate_args=None):
        self.p, self.num = p, num
        super().__init__(p.shape, torch.Size([num]), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        return NumberRecorded(self.p.expand(batch_shape), self.num, validate_args=False)

    def sample(self, sample_shape=()):
        missing = (self.num * self.p).floor().unsqueeze(-1)
        order = torch.rand(*sample_shape, *self.p.shape, self.num).argsort(-1).argsort(-1)
        return (order >= missing).to(self.p.dtype)

    def log_prob(self, value):
        missing = (self.num * self.p).floor()
        total = torch.tensor(self.num + 1.0, dtype=self.p.dtype)
        ways = total.lgamma() - (missing + 1).lgamma() - (total - missing).lgamma()
        return torch.where(self.num - value.sum(-1) == missing, -ways, -torch.inf)


# (model begins)
def number_model(cohort):
    with pyro.plate("individual", len(cohort)):
        log_k1 = pyro.sample("log_k1", dist.Normal(LOC, SCALE))
        p = pyro.sample("p", dist.Uniform(0.0, 0.8))
        y, record = cohort["y"], cohort["y_recorded"]
        distribution = dist.Normal(reaction(log_k1, y.times), NOISE).mask(y.observed)
        pyro.sample("y", distribution.to_event(1), obs=y.values)
        pyro.sample("y_recorded", NumberRecorded(p, y.times.shape[-1]), obs=record.values)


# (model ends)
# (value begins)
def value_model(cohort):
    with pyro.plate("individual", len(cohort)):
        log_k1 = pyro.sample("log_k1", dist.Normal(LOC, SCALE))
        b = pyro.sample("b", dist.Normal(0.0, 3.0))
        y, record = cohort["y"], cohort["y_recorded"]
        distribution = dist.Normal(reaction(log_k1, y.times), NOISE)
        value = pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

        def rule(y):
            return torch.sigmoid(-(A + b[..., None] * y))

        probability = nlme.recording_probability(rule, distribution, value, y.observed)
        pyro.sample("y_recorded", dist.Bernoulli(probability).to_event(1), obs=record.values)


# (value ends)
TIMES = torch.arange(11.0)
design = Schedule({"y": TIMES, "y_recorded": TIMES})


def main(output, budget):
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 4), layout="constrained")
    kinds = {"p": number_model, "b": value_model}
    for panel, (name, model) in zip(panels, kinds.items(), strict=True):
        guide = pa.train(model, design, budget=budget, seed=1, progress=False)
        truth = guide.structure.draw_individuals(design.complete(200, None), {}, 1, 7)[0]
        empty = torch.zeros(200, 0)
        cohort, _ = guide.structure.simulate(
            design.complete(200, None), truth, empty, {}, torch.Generator().manual_seed(7)
        )
        individuals = pa.sample_individuals(model, cohort, {}, guide=guide, num_draws=500)
        true = guide.structure.constrained_draws(cohort, truth.unsqueeze(0), {})[name][0]
        draws = individuals.draws(200)[name]
        low, middle, high = draws.quantile(torch.tensor([0.1, 0.5, 0.9]).double(), 0)
        panel.errorbar(true, middle, [middle - low, high - middle], fmt=".", lw=0.5)
        panel.plot(*[[true.min(), true.max()]] * 2, color="black", lw=1)
        panel.set(xlabel=f"true {name}", ylabel=f"posterior of {name} (median, 80 %)")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "recording.png", dpi=130)
    print("The parameter of the mechanism is recovered from what is missing.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument("--budget", default="20s", help="for each of two trainings")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
