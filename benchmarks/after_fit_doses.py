r"""Individual doses beside closed forms, published ones, and those that patients need."""

import math
import time
from pathlib import Path

import pandas
import pyro
import pyro.distributions as dist
import torch
from scipy.stats import norm

import pyro_amortized as pa
from pyro_amortized import nlme

REFERENCES = Path(__file__).parents[2] / "shared" / "references" / "dosing"


def oral(cohort):
    """One compartment with absorption, log-normal parameters, proportional error."""
    center = torch.tensor([-1.0, 3.0, 0.0])
    typical = pyro.sample("typical", dist.LogNormal(center, 2.0).to_event(1))  # CL, V, KA
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical.log(), omega).to_event(1))
        cl, v, ka = phi.exp().unbind(-1)
        y = cohort["y"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        error = nlme.proportional_error(f, b[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def oral_two(cohort):
    """Two compartments with absorption; Q = 4 is known."""
    center = torch.tensor([1.4, 4.2, 0.0, 3.9])
    typical = pyro.sample("typical", dist.LogNormal(center, 1.0).to_event(1))  # CL, Vc, KA, Vp
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(4)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical.log(), omega).to_event(1))
        cl, v, ka, v2 = phi.exp().unbind(-1)
        y = cohort["y"]
        q = torch.full_like(cl, 4.0)
        f = nlme.two_compartments(y.times, cohort.doses, ka=ka, cl=cl, v=v, q=q, v2=v2)
        error = nlme.proportional_error(f, b[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


SD = math.sqrt(0.2)
ORAL = {"typical": [4.0, 70.0, 1.0], "omega": [SD] * 3, "b": 0.05}
ORAL_TWO = {"typical": [4.0, 70.0, 1.0, 50.0], "omega": [SD] * 4, "b": 0.05}
WARFARIN = {"typical": [0.15, 8.0, 1.0], "omega": [0.07**0.5, 0.02**0.5, 0.6**0.5], "b": 0.1}


def claim(value, bound):
    low, high = bound if isinstance(bound, tuple) else (-math.inf, bound)
    return {"value": value, "bound": bound, "holds": bool(low <= value <= high)}


def closed_cases():
    """Targets, options, and the exact doses: the AUC of an interval at steady state is dose / CL."""
    window, target, median = pa.Exposure(steady_state=True), pa.Target, 4.0
    z = norm.ppf(0.9)
    return {
        "AUC at least 50 with probability .9": (
            target.auc(low=50, window=window),
            {"probability": 0.9},
            50 * median * math.exp(z * SD),
        ),
        "AUC at most 60 with probability .9": (
            target.auc(high=60, window=window),
            {"probability": 0.9},
            60 * median * math.exp(-z * SD),
        ),
        "AUC between 40 and 60": (
            target.auc(40, 60, window=window),
            {},
            math.sqrt(40 * 60) * median,
        ),
        "AUC near 50, squared log loss": (target.auc(value=50, window=window), {}, 50 * median),
        "AUC near 50, squared loss": (
            target.auc(value=50, window=window),
            {"loss": lambda auc: (auc - 50).square()},
            50 * median * math.exp(-1.5 * SD**2),
        ),
    }


def closed_forms(small):
    """Optimal doses of the population without samples, in closed form."""
    known, steady, errors = pa.population(oral, ORAL), nlme.regimen(1, 12, 2), {}
    for name, (aim, options, exact) in closed_cases().items():
        begin = time.perf_counter()
        options |= {"num_draws": 500} if small else {}
        result = pa.recommend(
            known, None, (20.0, 2000.0), target=aim, regimen=steady, seed=1, **options
        )
        errors[name] = float(result.amounts[0]) / exact - 1
        mc = float(result.amount_errors[0]) / exact
        seconds = time.perf_counter() - begin
        print(
            f"{name:36} {float(result.amounts[0]):8.2f}, exact {exact:8.2f}: {100 * errors[name]:+.2f} "
            f"% (MC error {100 * mc:.2f} %), {seconds:.1f} s"
        )
    largest = max(abs(x) for x in errors.values())
    return {"largest relative error of doses with a closed form": claim(largest, 0.01)}


def show_deviations(title, deviation, error, spread):
    """Deviations of doses from the mean of the methods, in words."""
    print(
        f"{title}: rms deviation from the mean of the methods "
        f"{100 * float(deviation.square().mean().sqrt()):.2f} %, largest "
        f"{100 * float(deviation.abs().max()):.2f} % (MC error up to "
        f"{100 * float(error.max()):.2f} %); spread of the methods up to "
        f"{100 * float(spread.max()):.2f} %"
    )


def published(small):
    """The doses that were published for simulated patients, by three methods."""
    if not REFERENCES.is_dir():
        print(f"{REFERENCES} is absent: the published doses are left out")
        return {}
    table = pandas.read_csv(REFERENCES / "published.csv", dtype={"run": str})
    models = {"001": pa.population(oral, ORAL), "101": pa.population(oral_two, ORAL_TWO)}
    targets = {
        "auc": pa.Target.auc(low=500, window=pa.Exposure(0, 12)),
        "concentration": pa.Target.concentration(3, low=30),
    }
    ours, others, outside = [], [], 0
    for run, known in models.items():
        patients = nlme.read_table(REFERENCES / f"run{run}.csv", series="y")
        patients = patients[:2] if small else patients
        options = {"probability": 0.89, "num_draws": 300 if small else None, "seed": 1}
        for name, target in targets.items():
            result = pa.recommend(known, patients, (100.0, 1e5), target=target, **options)
            rows = table[(table["run"] == run) & (table["target"] == name)][: len(patients)]
            methods = torch.tensor(rows[["monolix", "mcmc", "sir_1e6"]].to_numpy())
            middle = methods.mean(1)
            deviation = result.amounts / middle - 1
            spread = (methods.amax(1) - methods.amin(1)) / middle
            error = result.amount_errors / middle
            outside += int((deviation.abs() > spread + 3 * error).sum())
            ours.append(deviation)
            others.append(methods / middle.unsqueeze(1) - 1)
            show_deviations(f"run {run}, {name:13}", deviation, error, spread)
    rms = float(torch.cat(ours).square().mean().sqrt())
    of_methods = torch.cat(others).square().mean(0).sqrt().tolist()
    print(f"rms: ours {100 * rms:.2f} %, methods {[round(100 * x, 2) for x in of_methods]} %")
    return {
        "largest of published doses' relative deviation from the mean of methods": claim(
            max(float(x.abs().max()) for x in ours), 0.058
        ),
        "published doses farther than spread of methods + 3 MC errors": claim(outside, 0),
    }


def sampled_patients(num):
    """Patients with three samples, and their clearances."""
    known = pa.population(oral, ORAL)
    design = nlme.study([1.5, 6, 20], nlme.regimen(200), num_individuals=num, series="y")
    structure = pa.read_structure(oral, design)
    generator = torch.Generator().manual_seed(1)
    u = structure.draw_individuals(design, known.estimates, 1, generator)
    shared = structure.unconstrain_population(known.estimates, structure.shared)
    patients, _ = structure.simulate(
        design, u[0], shared.expand(num, -1), known.estimates, generator
    )
    return patients, u[0, :, 0].exp()


def attainment(small):
    """Patients under the recommended and the standard dose; seconds of 1,000 recommendations."""
    num = 20 if small else 1000
    patients, clearance = sampled_patients(num)
    target = pa.Target.auc(40, 60, window=pa.Exposure(steady_state=True))
    begin = time.perf_counter()
    result = pa.recommend(
        pa.population(oral, ORAL),
        patients,
        (20.0, 2000.0),
        target=target,
        regimen=nlme.regimen(1, 12, 2),
        num_draws=300 if small else None,
        seed=1,
    )
    seconds = time.perf_counter() - begin
    shares = {
        name: float(((dose / clearance >= 40) & (dose / clearance <= 60)).double().mean())
        for name, dose in (("recommended", result.amounts), ("standard", 4.0 * math.sqrt(2400)))
    }
    predicted = float(result.probability.mean())
    print(
        f"{num} patients with 3 samples: {seconds:.1f} s; target reached by {shares['recommended']:.3f} "
        f"under the recommended dose (predicted {predicted:.3f}), {shares['standard']:.3f} under the "
        "standard dose"
    )
    return {
        "seconds of 1,000 patients with 3 samples": claim(seconds, 30.0),
        "attainment: standard less recommended dose": claim(
            shares["standard"] - shares["recommended"], 0.0
        ),
        "attainment: predicted less observed": claim(
            abs(predicted - shares["recommended"]), 3 * 0.5 / math.sqrt(num)
        ),
    }
