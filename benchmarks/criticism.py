r"""Which defects of data and models `diagnose` finds, and how often right analyses are blamed.

Cohorts of 48 individuals with seven concentrations each are simulated from a one-compartment model,
a defect is planted, and the model without it is fitted. A defect is found if `diagnose` does not
pass, and called by its name if the check of its kind does not pass. A cohort is
blamed if a check fails, and not only asks for a look. The last line is JSON with ``claims``.

python benchmarks/criticism.py [--cohorts 5] [--clean 24] [--small]
"""

import argparse
import json
import warnings

import pyro
import pyro.distributions as dist
import torch

from criticism_defects import DEFECTS, planted

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import diagnose

LABELS = {"labels": ["ka", "cl", "v"]}


def model(cohort):
    typical = pyro.sample(
        "typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1), infer=LABELS
    )
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1), infer=LABELS)
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1), infer=LABELS)
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["y"]
        prediction = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        noise = nlme.proportional_error(prediction, sigma[..., None])
        pyro.sample("y", noise.mask(y.observed).to_event(1), obs=y.values)


def checks_of(defect, num, seed):
    """Status of every check of a fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(model, planted(DEFECTS.get(defect), num, seed), seed=seed)
        return {check.name: check.status for check in diagnose(fit, seed=seed).checks}


def share(flags):
    return sum(flags) / max(1, len(flags))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=5, help="cohorts of each defect")
    parser.add_argument("--clean", type=int, default=24, help="cohorts without a defect")
    parser.add_argument("--small", action="store_true", help="one defect of a small cohort")
    arguments = parser.parse_args()
    num, defects = 48, list(DEFECTS)
    if arguments.small:
        num, defects, arguments.cohorts, arguments.clean = 12, defects[:1], 1, 1
    found, named = {}, {}
    for defect in defects:
        results = [checks_of(defect, num, seed) for seed in range(arguments.cohorts)]
        found[defect] = share([any(x != "passed" for x in r.values()) for r in results])
        right = DEFECTS[defect].checks
        named[defect] = share([any(r.get(x, "passed") != "passed" for x in right) for r in results])
        failed = share([any(x == "failed" for x in r.values()) for r in results])
        print(
            f"{defect:34} found {found[defect]:5.0%}  by its name {named[defect]:5.0%}  blamed {failed:5.0%}",
            flush=True,
        )
    clean = [checks_of("", num, 1000 + seed) for seed in range(arguments.clean)]
    blamed = share([any(x == "failed" for x in r.values()) for r in clean])
    looked = share([any(x != "passed" for x in r.values()) for r in clean])
    print(
        f"{len(clean)} right analyses: blamed {blamed:.0%}, blamed or asked for a look {looked:.0%}"
    )
    values = {
        "defects found": (min(found.values()), 0.95, "at least"),
        "defects called by their name": (min(named.values()), 0.9, "at least"),
        "right analyses that were blamed": (blamed, 0.01, "at most"),
        "right analyses asked for a look": (looked, 0.05, "at most"),
    }
    claims = {
        name: {
            "value": value,
            "bound": bound,
            "holds": value >= bound if side == "at least" else value <= bound,
        }
        for name, (value, bound, side) in values.items()
    }
    print(json.dumps({"benchmark": "criticism", "claims": claims}))


if __name__ == "__main__":
    main()
