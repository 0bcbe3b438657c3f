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

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import diagnose

TIMES = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0])
TYPICAL, OMEGA, SIGMA = torch.tensor([0.4, 1.2, 3.6]), torch.tensor([0.4, 0.25, 0.2]), 0.15
LABELS = {"labels": ["ka", "cl", "v"]}

# The check that has the right name for each defect.
RIGHT_CHECK = {
    "sex on clearance, x 2.7": "random effects and covariates",
    "sex on clearance, x 1.35": "random effects and covariates",
    "weight on volume": "random effects and covariates",
    "clearance drifts with the order": "random effects and covariates",
    "correlation 0.9": "correlations of random effects",
    "one individual x 0.1": "distribution of random effects",
    "three individuals x 0.2, x 5": "distribution of random effects",
    "two groups of volumes": "distribution of random effects",
    "additive error": "residuals of y",
    "two compartments": "residuals of y",
    "an individual twice": "identity of individuals and values",
    "all values x 100": "estimates and their prior",
    "dropout by clearance": "random effects and recording",
}


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


def parameters(defect, eta, sex, weight):
    """Logarithms of the individual parameters, with a defect of the population model."""
    num = len(eta)
    if defect == "correlation 0.9":
        eta[:, 2] = OMEGA[2] * (0.9 * eta[:, 1] / OMEGA[1] + 0.19**0.5 * eta[:, 2] / OMEGA[2])
    phi = TYPICAL + eta
    if defect.startswith("sex on clearance"):
        phi[:, 1] += sex * (1.0 if defect.endswith("2.7") else 0.3)
    if defect == "weight on volume":
        phi[:, 2] += (weight / 70).log()
    if defect == "clearance drifts with the order":
        phi[:, 1] += torch.linspace(-0.4, 0.4, num)
    if defect == "two groups of volumes":
        phi[:, 2] = TYPICAL[2] + 0.05 * eta[:, 2] + 0.5 * (2 * (torch.arange(num) % 2) - 1)
    return phi.double()


def values_of(defect, phi, times, doses, generator):
    """Concentrations, with a defect of the structure, of the error or of the file."""
    ka, cl, v = phi.exp().unbind(-1)
    if defect == "two compartments":
        clean = nlme.two_compartments(times, doses, ka=ka, cl=cl, v=v / 2, q=cl, v2=2 * v)
    else:
        clean = nlme.one_compartment(times, doses, ka=ka, cl=cl, v=v)
    noise = SIGMA * torch.randn(times.shape, generator=generator).double()
    values = clean + (0.3 * noise if defect == "additive error" else clean * noise)
    values = values.clamp(min=1e-3)
    factors = {5: 0.1} if defect == "one individual x 0.1" else {}
    if defect == "three individuals x 0.2, x 5":
        factors = {3: 0.2, 9: 0.2, 20: 5.0}
    for row, factor in factors.items():
        values[row % len(values)] *= factor
    if defect == "an individual twice":
        values[2] = values[-1]
    return values * 100 if defect == "all values x 100" else values


def planted(defect, num, seed):
    """A cohort with a defect; "" is none."""
    generator = torch.Generator().manual_seed(seed)
    eta = OMEGA * torch.randn(num, 3, generator=generator)
    sex = (torch.rand(num, generator=generator) < 0.5).float()
    weight = 70 * torch.exp(0.2 * torch.randn(num, generator=generator))
    age = 20 + 50 * torch.rand(num, generator=generator)
    phi = parameters(defect, eta, sex, weight)
    times = TIMES.expand(num, -1).double().clone()
    doses = pa.Doses(times=torch.zeros(num, 1), amounts=torch.full((num, 1), 100.0))
    values = values_of(defect, phi, times, doses, generator)
    observed = torch.ones_like(values, dtype=torch.bool)
    if defect == "dropout by clearance":
        observed[phi[:, 1] > TYPICAL[1], 4:] = False
    covariates = {"sex": sex, "weight": weight, "age": age}
    return pa.Cohort({"y": pa.Series(times, values, observed)}, doses, covariates)


def checks_of(defect, num, seed):
    """Status of every check of a fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(model, planted(defect, num, seed), seed=seed)
        return {check.name: check.status for check in diagnose(fit, seed=seed).checks}


def share(flags):
    return sum(flags) / max(1, len(flags))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=5, help="cohorts of each defect")
    parser.add_argument("--clean", type=int, default=24, help="cohorts without a defect")
    parser.add_argument("--small", action="store_true", help="one defect of a small cohort")
    arguments = parser.parse_args()
    num, defects = 48, list(RIGHT_CHECK)
    if arguments.small:
        num, defects, arguments.cohorts, arguments.clean = 12, defects[:1], 1, 1
    found, named = {}, {}
    for defect in defects:
        results = [checks_of(defect, num, seed) for seed in range(arguments.cohorts)]
        found[defect] = share([any(x != "passed" for x in r.values()) for r in results])
        named[defect] = share([r.get(RIGHT_CHECK[defect]) != "passed" for r in results])
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
