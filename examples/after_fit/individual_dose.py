"""A dose for one patient from two samples, with published parameters and no fit.

The model is that of the posologyr paper (Leven, Coste, Mane 2022): one compartment with absorption,
CL 4 L/h, V 70 L, ka 1 per hour, variances 0.2, proportional error 5 %. The patient had 10 g and was
sampled twice. The next dose should give an AUC of 500 mg h/L or more over 12 h with probability
0.89. A second model has two compartments; the samples weight the two. A third sample then arrives,
and the same draws are weighted again.
"""

import argparse
import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots


def model(cohort, two=False):
    names = 4 if two else 3
    typical = pyro.sample("typical", dist.LogNormal(torch.zeros(names), 5.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(names)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical.log(), omega).to_event(1))
        cl, v, ka, *more = phi.exp().unbind(-1)
        y = cohort["concentration"]
        if two:
            q = torch.full_like(cl, 4.0)
            f = nlme.two_compartments(y.times, cohort.doses, ka=ka, cl=cl, v=v, q=q, v2=more[0])
        else:
            f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        error = nlme.proportional_error(f, b[..., None])
        pyro.sample("concentration", error.mask(y.observed).to_event(1), obs=y.values)


def two_compartments(cohort):
    model(cohort, two=True)


def patient(num_samples):
    """Samples of a patient after 10 g; the values of later ones are not known yet."""
    times = torch.tensor([[1.5, 4.4, 24.6]]).double()
    values = torch.tensor([[91.29, 110.83, 20.67]]).double()
    observed = torch.arange(3).unsqueeze(0) < num_samples
    dose = pa.Doses(torch.zeros(1, 1).double(), torch.full((1, 1), 10_000.0).double())
    return pa.Cohort({"concentration": pa.Series(times, values, observed)}, dose)


def main(output):
    sd = math.sqrt(0.2)
    one = pa.population(model, {"typical": [4, 70, 1], "omega": [sd] * 3, "b": 0.05})
    two = pa.population(two_compartments, {"typical": [4, 70, 1, 50], "omega": [sd] * 4, "b": 0.05})
    target = pa.Target.auc(low=500, window=pa.Exposure(0, 12))
    question = {"target": target, "probability": 0.89, "seed": 1}
    doses = (500.0, 50_000.0)
    alone = pa.recommend(one, None, doses, **question)
    print(f"without samples: {float(alone.amounts[0]):.0f} mg")
    first = pa.recommend(one, patient(2), doses, num_draws=10_000, **question)
    print(first)
    both = pa.recommend({"one": one, "two": two}, patient(2), doses, **question)
    print(f"\naverage of two models:\n{both}")
    last = pa.recommend(one, patient(3), doses, previous=first, **question)
    print(f"\nwith the third sample (earlier draws used: {last.reweighted}):\n{last}")
    output.mkdir(parents=True, exist_ok=True)
    plots.recommended_dose(last).savefig(output / "individual_dose.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    main(parser.parse_args().output)
