"""Two experiments in one fit: different times, different doses, one parameter for each experiment.

The first study is theophylline as it was measured. The second study is simulated with twice the
dose, five samples and a clearance that is 30 % lower. Clearance has a typical value in each study,
all other parameters are common. One guide serves both designs.
"""

import argparse
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import quickstart

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots

LOWER = 0.3567  # log of 1 / 0.7


def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1))
    change = pyro.sample("change", dist.Normal(0.0, 0.5))  # of log CL in the second study
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    study = cohort.covariates["study"]
    with pyro.plate("individual", len(cohort)):
        zero = torch.zeros_like(study)
        mean = typical + torch.stack([zero, change * study, zero], -1)
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))  # log ka, CL, V
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        distribution = dist.Normal(f, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", distribution, obs=y.values)


def both():
    """Twelve individuals of the first study, twenty-four of the second."""
    first = quickstart.cohort
    study = {"study": torch.zeros(12, dtype=torch.float64)}
    first = pa.Cohort(dict(first.series), first.doses, study, first.ids)
    times = torch.tensor([0.5, 2.0, 5.0, 9.0, 24.0]).double().expand(24, -1).clone()
    doses = pa.Doses(torch.zeros(24, 1).double(), torch.full((24, 1), 640.0).double())
    design = pa.Cohort(
        {"concentration": pa.Series(times, torch.ones(24, 5).double())},
        doses,
        {"study": torch.ones(24, dtype=torch.float64)},
        tuple(f"second-{i}" for i in range(1, 25)),
    )
    truth = {
        "typical": torch.tensor([0.459, 1.012, 3.454]).double(),
        "change": torch.tensor(-LOWER).double(),
        "omega": torch.tensor([0.636, 0.265, 0.136]).double(),
        "sigma": torch.tensor(0.696).double(),
    }
    structure = pa.read_structure(model, design)
    return pa.concatenate([first, pa.simulate_population(structure, design, truth, seed=4)])


def main(output, budget):
    cohort = both()
    guide = pa.train(model, cohort, budget=budget, seed=1)
    together = pa.fit_population(model, cohort, guide=guide, seed=1)
    same = pa.fit_population(
        model, cohort, guide=guide, fixed={"change": torch.zeros((), dtype=torch.float64)}, seed=1
    )
    print(together.summary())
    print(pa.likelihood_ratio_test(same, together))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "two_experiments.png"
    plots.visual_predictive_check(together, stratify="study").savefig(path, dpi=110)
    change, error = together.estimates["change"], together.standard_errors["change"]
    print(
        f"The second study clears {1 - float(change.exp()):.0%} less (SE of the log {error:.2f})."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--budget", default="60s", help="time to train")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
