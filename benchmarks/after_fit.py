r"""What follows a fit: simulation, individual doses, designs.

``--only`` runs one part: speed, coverage, closed_forms, published, attainment, designs. The last
line is JSON with ``claims``: name -> value, bound, and whether it holds. Bounds are upper ones
where ``bound`` is a number, and ranges where it has two. ``--small`` runs every part in some
seconds, to see that it runs; its figures mean nothing. The published doses are read from
``../shared/references`` and left out where this folder is absent.
"""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

import pandas
import pyro
import pyro.distributions as dist
import torch
from scipy.stats import norm

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import pyro_amortized as pa
from pyro_amortized import nlme

REFERENCES = ROOT.parent / "shared" / "references" / "dosing"
WARFARIN_TIMES = [0.5, 1, 2, 6, 24, 36, 72, 120]
# PopED, reduced information, first-order: relative standard errors in per cent of CL, V, KA, their
# variances, and the variance of the residual error (vignette of the warfarin example).
POPED = [4.738, 2.756, 13.926, 25.627, 30.344, 25.777, 11.171]


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


def simulated(known, design, seed):
    structure = pa.read_structure(known.model, design)
    return pa.simulate_population(structure, design, known.estimates, seed)


def speed(small):
    """1,000 individuals x 3 regimens x 200 populations: bands and exposures."""
    errors = {"typical": [0.2, 3.0, 0.1], "omega": [0.04] * 3, "b": 0.004}
    known = pa.population(oral, ORAL, standard_errors=errors)
    regimens = {
        "100 twice a day": nlme.regimen(100, 12, 7),
        "200 once a day": nlme.regimen(200, 24, 4),
        "at steady state": nlme.regimen(100, 12, steady_state=True),
    }
    num, num_draws = (50, 10) if small else (1000, 200)
    begin = time.perf_counter()
    result = pa.simulate(known, regimens, num_individuals=num, num_draws=num_draws, seed=1)
    str(result)
    bands = result.bands()
    seconds = time.perf_counter() - begin
    print(f"{num} individuals x 3 regimens x {num_draws} populations: {seconds:.1f} s")
    assert len(bands) == 3 * 41
    return {"seconds of 1,000 individuals x 3 regimens x 200 populations": claim(seconds, 10.0)}


def refitted(known, design, seed):
    """A simulated study, and its fit from the truth."""
    data = simulated(known, design, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        return pa.fit_population(known.model, data, start=known.estimates, num_draws=200, seed=seed)


def coverage(small):
    """Coverage of 90 % bands for new individuals after the fit of simulated studies."""
    known = pa.population(oral, WARFARIN)
    design = nlme.study([0.5, 2, 6, 24, 48, 96], nlme.regimen(70), num_individuals=24, series="y")
    regimen, times = nlme.regimen(20, 24, 5, loading=60), [1.0, 24.0, 50.0, 96.0, 120.0, 168.0]
    truth = pa.simulate(known, regimen, times=times, num_individuals=2000, seed=123)
    new = truth.observation[truth.regimens[0]][0]
    shares, num_uncertain = [], 0
    for seed in range(1 if small else 200):
        fit = refitted(known, design, seed)
        options = {"num_individuals": 50 if small else 300, "num_draws": 20 if small else 60}
        result = pa.simulate(fit, regimen, times=times, seed=seed, **options)
        num_uncertain += result.uncertainty == "population and individuals"
        bands = result.bands(0.9)
        low, high = (torch.tensor(bands[x].to_numpy()) for x in ("low", "high"))
        shares.append(((new >= low) & (new <= high)).double().mean(0))
    by_time = torch.stack(shares).mean(0)
    error = float(torch.stack(shares).mean(1).std(correction=0) / math.sqrt(len(shares)))
    print(
        f"coverage of 90 % bands, {len(shares)} studies ({num_uncertain} with standard errors): "
        f"{float(by_time.mean()):.4f} +- {error:.4f}; by time {[round(x, 3) for x in by_time.tolist()]}"
    )
    return {"coverage of 90 % bands": claim(float(by_time.mean()), (0.88, 0.92))}


def closed_forms(small):
    """Optimal doses of the population without samples, in closed form."""
    known = pa.population(oral, ORAL)
    steady, window = nlme.regimen(1, 12, 2), pa.Exposure(steady_state=True)
    target, median = pa.Target, 4.0  # the AUC of an interval at steady state is dose / CL
    z = norm.ppf(0.9)
    cases = {
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
    errors = {}
    for name, (aim, options, exact) in cases.items():
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
        for name, target in targets.items():
            result = pa.recommend(
                known,
                patients,
                (100.0, 100_000.0),
                target=target,
                probability=0.89,
                num_draws=300 if small else None,
                seed=1,
            )
            rows = table[(table["run"] == run) & (table["target"] == name)][: len(patients)]
            methods = torch.tensor(rows[["monolix", "mcmc", "sir_1e6"]].to_numpy())
            middle = methods.mean(1)
            deviation = result.amounts / middle - 1
            spread = (methods.amax(1) - methods.amin(1)) / middle
            error = result.amount_errors / middle
            outside += int((deviation.abs() > spread + 3 * error).sum())
            ours.append(deviation)
            others.append(methods / middle.unsqueeze(1) - 1)
            print(
                f"run {run}, {name:13}: rms deviation from the mean of the methods "
                f"{100 * float(deviation.square().mean().sqrt()):.2f} %, largest "
                f"{100 * float(deviation.abs().max()):.2f} % (MC error up to "
                f"{100 * float(error.max()):.2f} %); spread of the methods up to "
                f"{100 * float(spread.max()):.2f} %"
            )
    rms = float(torch.cat(ours).square().mean().sqrt())
    of_methods = torch.cat(others).square().mean(0).sqrt().tolist()
    print(f"rms: ours {100 * rms:.2f} %, methods {[round(100 * x, 2) for x in of_methods]} %")
    return {
        "largest of published doses' relative deviation from the mean of methods": claim(
            max(float(x.abs().max()) for x in ours), 0.058
        ),
        "published doses farther than spread of methods + 3 MC errors": claim(outside, 0),
    }


def attainment(small):
    """Patients under the recommended and the standard dose; seconds of 1,000 recommendations."""
    known = pa.population(oral, ORAL)
    num = 20 if small else 1000
    design = nlme.study([1.5, 6, 20], nlme.regimen(200), num_individuals=num, series="y")
    structure = pa.read_structure(oral, design)
    generator = torch.Generator().manual_seed(1)
    u = structure.draw_individuals(design, known.estimates, 1, generator)
    shared = structure.unconstrain_population(known.estimates, structure.shared)
    patients, _ = structure.simulate(
        design, u[0], shared.expand(num, -1), known.estimates, generator
    )
    target = pa.Target.auc(40, 60, window=pa.Exposure(steady_state=True))
    begin = time.perf_counter()
    result = pa.recommend(
        known,
        patients,
        (20.0, 2000.0),
        target=target,
        regimen=nlme.regimen(1, 12, 2),
        num_draws=300 if small else None,
        seed=1,
    )
    seconds = time.perf_counter() - begin
    clearance = u[0, :, 0].exp()
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


def natural(values):
    """Typical values, variances and the residual variance, as PopED and PFIM print them."""
    parts = [values["typical"], values["omega"] ** 2, (values["b"] ** 2).reshape(1)]
    return torch.cat(parts)


def designs(small):
    """Expected standard errors of the warfarin design beside refitted studies and PopED."""
    known = pa.population(oral, WARFARIN)
    design = nlme.study(WARFARIN_TIMES, nlme.regimen(70), num_individuals=32, series="y")
    begin = time.perf_counter()
    expected = pa.evaluate_designs(known, design, num_simulated=64 if small else 2000, seed=1)[
        "design"
    ]
    error, noise = expected.standard_error(natural), expected.monte_carlo_error(natural)
    seconds = time.perf_counter() - begin
    truth = natural(known.estimates)
    rse = 100 * error / truth
    poped = torch.tensor(POPED)
    print(f"expected standard errors: {seconds:.1f} s")
    print("parameter      CL      V     KA  om2 CL   om2 V  om2 KA    b2")
    print("RSE %     ", *(f"{x:7.2f}" for x in rse))
    print("MC error %", *(f"{100 * x:7.2f}" for x in noise / error))
    print("PopED     ", *(f"{x:7.2f}" for x in poped))
    begin = time.perf_counter()
    fits = [refitted(known, design, seed) for seed in range(2 if small else 500)]
    vectors = torch.stack([fit.vector for fit in fits])
    estimates = torch.stack([natural(fit.estimates) for fit in fits])
    spread, spread_error = estimates.std(0), 1 / math.sqrt(2 * len(fits))
    unconstrained = vectors.std(0) / expected.covariance.diagonal().sqrt() - 1
    print(f"{len(fits)} refitted studies: {time.perf_counter() - begin:.0f} s")
    print("spread, % ", *(f"{x:7.2f}" for x in 100 * spread / truth))
    ratio = error / spread - 1
    print("ratio - 1 ", *(f"{100 * x:7.2f}" for x in ratio), f"(error {100 * spread_error:.1f} %)")
    print("on the scale of the search", *(f"{-100 * x:7.2f}" for x in unconstrained))
    return {
        "largest deviation of expected errors from the spread of studies": claim(
            float(ratio.abs().max()), 0.05
        ),
        "root mean square of these deviations": claim(float(ratio.square().mean().sqrt()), 0.05),
        "largest deviation from PopED": claim(float((rse / poped - 1).abs().max()), 0.1),
    }


PARTS = {f.__name__: f for f in (speed, coverage, closed_forms, published, attainment, designs)}


def main(small, only):
    if only is not None and only not in PARTS:
        raise SystemExit(f"There is no part {only!r}; parts: {list(PARTS)}.")
    claims = {}
    for name, part in PARTS.items():
        if only in (None, name):
            claims |= part(small)
    print(json.dumps({"benchmark": "after_fit", "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="every part in some seconds")
    parser.add_argument("--only", help="one part")
    arguments = parser.parse_args()
    main(arguments.small, arguments.only)
