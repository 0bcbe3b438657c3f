"""Pain scores of four categories that depend on the score before, with scores that are missing.

A Markov chain in continuous time: patients move between neighbouring scores with rates of their
own, and a drug lowers the rates upwards. Missing scores are summed over exactly.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots

NUM = 4
TRUTH = {"up": -1.6, "down": -1.2, "drug": -0.8, "omega": 0.6}


# (model begins)
def model(cohort):
    up = pyro.sample("up", dist.Normal(-1.0, 1.0))
    down = pyro.sample("down", dist.Normal(-1.0, 1.0))
    drug = pyro.sample("drug", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        worse = pyro.sample("worse", dist.Normal(up, omega))  # log of the rate upwards
        pain = cohort["pain"]
        rising = (worse + drug * cohort.covariates["treated"]).exp()
        falling = down.exp().expand(rising.shape)
        rates = torch.zeros(len(cohort), NUM, NUM, dtype=torch.float64)
        for j in range(NUM - 1):
            rates[:, j, j + 1], rates[:, j + 1, j] = rising, falling
        rates = rates - torch.diag_embed(rates.sum(-1))
        waits = pain.times.diff(dim=-1)[..., None, None]
        transitions = torch.linalg.matrix_exp(rates.unsqueeze(1) * waits)
        start = torch.tensor([0.0, 0.2, 0.5, 0.3], dtype=torch.float64)
        chain = nlme.MarkovCategories(start, transitions, pain.observed)
        pyro.sample("pain", chain, obs=pain.values)


# (model ends)


def simulated(num=120, seed=1):
    treated = torch.arange(num) % 2
    design = nlme.study(
        [0, 1, 2, 4, 7, 10, 14], num_individuals=num, series="pain", covariates={"treated": treated}
    )
    design = design.with_values({"pain": torch.ones(num, 7).double()})
    generator = torch.Generator().manual_seed(seed)
    design = pa.RandomMissing(0.2, 0.2)(design, generator)
    truth = {n: torch.tensor(x).double() for n, x in TRUTH.items()}
    return pa.simulate_population(pa.read_structure(model, design), design, truth, seed=seed)


def main(output, num):
    fit = pa.fit_population(model, simulated(num), seed=1)
    print(fit.summary())
    output.mkdir(parents=True, exist_ok=True)
    figure = plots.visual_predictive_check(fit, stratify="treated", num_simulations=300)
    figure.savefig(output / "pain_scores.png", dpi=110)
    print("Shares of every score, of the data and of simulations, agree in both arms.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=120)
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals)
