"""Counts, categories, events, sites and occasions: coverage, and likelihoods against exact ones.

The functions of this file are called by ``model_building.py``. Every cohort is a task whose result
is a file, so that a run of several hours continues where it ended.
"""

import contextlib
import json
import math
import multiprocessing
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.numerics.maximization import maximize

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import outcome_models as om
from tests.population import test_level_fit as levels

Z95 = 1.959964
WEIBULL = {"scale": 2.0, "shape": 1.5, "effect": 0.5, "omega": 0.5}
# End of the follow-up for about 20 % and 60 % of the individuals with an event.
ENDS = {"alone 20 %": 2.1, "alone 60 %": 6.0}
JOINT_BASE = {"joint 20 %": -0.6, "joint 60 %": 0.9}
COUNTS = tuple(n for n in om.MODELS if n != "markov_plain")


def doubles(values):
    return {n: torch.as_tensor(x, dtype=torch.float64) for n, x in values.items()}


def problem(name):
    """Model, design, truth and what is held of one kind of data."""
    if name in ENDS:
        truth = doubles(WEIBULL)
        # One event of each individual says nothing about the variance of a frailty.
        held = {"omega": truth["omega"]}
        return om.weibull_death, om.event_design(200, ENDS[name]), truth, held
    if name == "recurrent":
        return om.weibull_death, om.event_design(100, 10.0, 12), doubles(WEIBULL), {}
    if name in JOINT_BASE:
        truth = om.JOINT | {"log_base": torch.tensor(JOINT_BASE[name], dtype=torch.float64)}
        return om.joint, om.joint_design(150), truth, {}
    return om.MODELS[name], om.trend_design(100), om.truth_of(name), {}


def one_fit(name, seed):
    """One cohort: whether each 95 % interval covers, and the error of -2LL."""
    model, design, truth, held = problem(name)
    torch.set_num_threads(1)
    structure = pa.read_structure(model, design)
    cohort = pa.simulate_population(structure, design, truth, seed=1000 + seed)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(model, cohort, fixed=held or None, seed=seed, progress=False)
    seconds = time.perf_counter() - begin
    free = ~structure.coordinates(tuple(held))
    known = fit.estimated & free
    error = fit.vector - structure.unconstrain_population(truth)
    z = error / fit.covariance.diagonal().sqrt()
    names = [n for n, x in zip(structure.population_names, free, strict=True) if x]
    return {
        "names": names,
        "z": [float(x) if k else None for x, k in zip(z[free], known[free], strict=True)],
        "converged": fit.converged,
        "events": event_share(cohort),
        "seconds": seconds,
    }


def event_share(cohort):
    for series in cohort.series.values():
        if series.values.dim() == 3:
            return float(series.values[:, 0, 1].mean())
    return None


def task(arguments):
    name, seed, folder = arguments
    path = Path(folder) / f"{name.replace(' %', '').replace(' ', '_')}_{seed}.json"
    if not path.exists():
        result = one_fit(name, seed)
        path.with_suffix(".part").write_text(json.dumps(result))
        path.with_suffix(".part").rename(path)
    return name, json.loads(path.read_text())


def coverage(names, num_cohorts, workers, folder):
    """Coverage of 95 % intervals of all parameters, by kind of data."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tasks = [(name, seed, str(folder)) for seed in range(num_cohorts) for name in names]
    found = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        results = map(task, tasks)
        if workers > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            results = pool.imap_unordered(task, tasks)
        for number, (name, result) in enumerate(results, 1):
            found[name].append(result)
            if number % 50 == 0:
                print(f"{number} of {len(tasks)} fits", flush=True)
    claims = {}
    for name, results in found.items():
        rows = torch.tensor([[math.nan if x is None else x for x in r["z"]] for r in results])
        inside = torch.where(rows.isnan(), torch.nan, (rows.abs() < Z95).double())
        share, of_each = float(inside.nanmean()), inside.nanmean(0)
        events = [r["events"] for r in results if r["events"] is not None]
        seconds = sorted(r["seconds"] for r in results)[len(results) // 2]
        words = "  ".join(f"{n} {x:.3f}" for n, x in zip(results[0]["names"], of_each, strict=True))
        without = int(rows.isnan().sum())
        print(
            f"{name:18s} coverage {share:.3f} of {len(results)} cohorts, {seconds:.1f} s per fit, "
            f"{without} without a standard error"
            + (f", {sum(events) / len(events):.2f} with an event" if events else "")
            + f"\n    {words}"
        )
        bounds = [0.93, 0.97]
        claims[f"coverage, {name}"] = {
            "value": share,
            "bound": bounds,
            "holds": bounds[0] <= share <= bounds[1],
            "cohorts": len(results),
            "by parameter": dict(zip(results[0]["names"], of_each.tolist(), strict=True)),
        }
    return claims


def likelihood_errors(names, seeds=(1, 2, 3)):
    """-2LL at the truth against quadrature, in Monte Carlo errors: largest root mean square."""
    claims = {}
    for name in names:
        model, design, truth, _ = problem(name)
        found = []
        for seed in seeds:
            cohort = om.simulated(model, design, truth, seed=100 + seed)
            marginal = pa.marginal_likelihood(model, cohort, truth, seed=seed)
            if name in JOINT_BASE:
                exact = om.exact_joint_minus2ll(model, cohort, truth)
            else:
                center = "scale" if "scale" in truth else "typical"
                exact = om.exact_minus2ll(model, cohort, truth, center)
            difference = marginal.minus2ll - float(exact.sum())
            found.append(difference / marginal.minus2ll_mc_error)
        rms = math.sqrt(sum(z * z for z in found) / len(found))
        print(
            f"{name:18s} -2LL against quadrature: {', '.join(f'{z:+.2f}' for z in found)} MC errors"
        )
        claims[f"-2LL in Monte Carlo errors, {name}"] = {"value": rms, "bound": 3, "holds": rms < 3}
    return claims


def site_claims(num_each=20):
    """Eight sites of 20 individuals: the closed likelihood, and nested quadrature."""
    return linear_site_claims(num_each) | binary_site_claims(num_each)


def linear_site_claims(num_each):
    """Normal values, beside the closed form."""
    cohort, begin = levels.sites(levels.linear, num_each=num_each), time.perf_counter()
    fit = pa.fit_levels(levels.linear, cohort, seed=1)
    seconds = time.perf_counter() - begin

    def objective(z):
        return levels.closed_log_likelihood(cohort, [z[0], *z[1:].exp()])

    best = maximize(objective, torch.tensor([1.0, -0.7, -1.2, -0.5]).double())
    exact = dict(
        zip(("mu", "omega", "sigma", "tau"), [best.vector[0], *best.vector[1:].exp()], strict=True)
    )
    worst = max(
        float((fit.estimates[n] - x).abs() / fit.standard_errors[n]) for n, x in exact.items()
    )
    error = abs(fit.minus2ll + 2 * best.value)
    print(
        f"sites, linear: {seconds:.1f} s, -2LL {error:.4f} from the exact one, estimates {worst:.4f} SE"
    )
    bound = 3 * fit.minus2ll_mc_error + 0.01
    return {
        "sites, estimates in SE of the exact maximum": {
            "value": worst,
            "bound": 0.1,
            "holds": worst < 0.1,
            "seconds": seconds,
        },
        "sites, -2LL from the exact one": {
            "value": error,
            "bound": bound,
            "holds": error < bound,
        },
    }


def binary_site_claims(num_each):
    """Yes/no values, beside nested quadrature."""
    truth = {"mu": -1.0, "omega": 1.0, "tau": 0.7}
    cohort = levels.sites(levels.binary, truth=truth, num_times=4, num_each=num_each)
    fit = pa.fit_levels(levels.binary, cohort, seed=1)
    at = [float(fit.estimates[n]) for n in ("mu", "omega", "tau")]
    error = abs(fit.minus2ll - levels.nested_quadrature(cohort, *at))
    bound = 3 * fit.minus2ll_mc_error + 0.01
    print(f"sites, binary: {fit.seconds:.1f} s, -2LL {error:.4f} from nested quadrature")
    claim = {"value": error, "bound": bound, "holds": error < bound}
    return {"sites of binary values, -2LL from quadrature": claim}


# Occasions: absorption, clearance and volume of the patient, clearance and absorption of each of
# two occasions, which lie so close that the first one has an effect on the second.

CENTER = (0.0, 1.0, 3.5)
OCCASIONS = {
    "typical": torch.tensor([0.2, 1.1, 3.6]),
    "omega": torch.tensor([0.4, 0.3, 0.2]),
    "between": torch.tensor([0.3, 0.2]),
    "b": torch.tensor(0.15),
}


def _rates(t, x, p):
    absorbed = p["ka"] * x[..., 0]
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * x[..., 1]], -1)


def _closed(y, cohort, visits, ka, cl, v):
    return nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v, occasions=visits)


def _solved(y, cohort, visits, ka, cl, v):
    start = torch.zeros(len(cohort), 2, dtype=torch.float64)
    piecewise = visits.piecewise({"ka": ka, "cl": cl})
    x = nlme.solve(
        _rates,
        start,
        y.times,
        {"v": v},
        doses=cohort.doses,
        piecewise=piecewise,
        rtol=1e-7,
        atol=1e-7,
    )
    return x[..., 1] / v[..., None]


def occasion_model(cohort, predict=_closed):
    typical = pyro.sample("typical", dist.Normal(torch.tensor(CENTER), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1))
    between = pyro.sample("between", dist.HalfNormal(torch.full((2,), 0.5)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.5))
    y = cohort["y"]
    visits = nlme.occasions(cohort.time_varying["OCC"], y.times)
    with pyro.plate("individual", len(cohort), dim=-1):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        with pyro.plate("occasion", visits.number, dim=-2):
            kappa = pyro.sample("kappa", dist.Normal(0.0, between).to_event(1))
        ka, cl = ((phi[..., j] + kappa[..., j]).exp() for j in range(2))
        prediction = predict(y, cohort, visits, ka, cl, phi[..., 2].exp())
        noise = nlme.proportional_error(prediction, b[..., None])
        pyro.sample("y", noise.mask(y.observed).to_event(1), obs=y.values)


def by_ode(cohort):
    occasion_model(cohort, _solved)


def occasion_cohort(num=73, seed=1):
    """Doses at 0 and 24 h, each with an occasion of its own and six samples."""
    hours = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 12.0]).double()
    times = torch.cat([hours, 24 + hours]).expand(num, -1).clone()
    begins = torch.tensor([0.0, 24.0]).double().expand(num, -1).clone()
    doses = pa.Doses(begins, torch.full((num, 2), 100.0).double())
    labels = pa.Series(begins, torch.tensor([1.0, 2.0]).double().expand(num, -1).clone())
    design = pa.Cohort(
        {"y": pa.Series(times, torch.ones_like(times))}, doses=doses, time_varying={"OCC": labels}
    )
    structure = pa.read_structure(occasion_model, design)
    return pa.simulate_population(structure, design, doubles(OCCASIONS), seed=seed)


def occasion_claims(num=73):
    cohort, begin = occasion_cohort(num), time.perf_counter()
    fit = pa.fit_population(occasion_model, cohort, seed=1, progress=False)
    seconds = time.perf_counter() - begin
    # The same draws and weights for both, so that the difference is that of the densities.
    draws = pa.sample_individuals(occasion_model, cohort, fit.estimates, num_draws=200, seed=2)
    totals = []
    for structure in (fit.structure, pa.read_structure(by_ode, cohort)):
        with torch.no_grad():
            density = sum(structure.log_density(cohort, draws.unconstrained, fit.estimates))
        log_weights = (density - draws.log_proposal).nan_to_num(-math.inf)
        totals.append(float(torch.logsumexp(log_weights, 0).sum()))
    error = 2 * abs(totals[0] - totals[1])
    z = (fit.vector - fit.structure.unconstrain_population(doubles(OCCASIONS))) / (
        fit.covariance.diagonal().sqrt()
    )
    print(
        f"occasions: {num} patients, 7 effects, {seconds:.1f} s, converged {fit.converged}; estimates "
        f"within {float(z.abs().max()):.2f} SE of the truth; -2LL of closed form and ODE differ by "
        f"{error:.2g} on the same draws"
    )
    return {
        "occasions, seconds of the fit": {"value": seconds, "bound": 60, "holds": seconds < 60},
        "occasions, -2LL of closed form and ODE": {
            "value": error,
            "bound": 0.01,
            "holds": error < 0.01,
        },
    }
