r"""A guide of any population: its own draws at the fitted population, and what it saves.

Each row trains one guide within a budget and asks it, without refinement, at the maximum of the
marginal likelihood of one or more population models: effective share of 2,000 draws, at the median
and for the worst individual. Further rows time new individuals and fits of many cells, and count
the modes that are lost. The last line is JSON with ``claims``. ``--small`` is a short training on theophylline alone; ``--only``
takes the name of one row. Data of the folder ``../shared/references`` are left out where it is
absent.
"""

import argparse
import importlib
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import joblib
import pyro
import pyro.distributions as dist
import torch

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path[:0] = [str(ROOT), str(EXAMPLES), str(EXAMPLES / "pharmacometrics")]

import modes
import quickstart
from first_answer_models import combined, full_omega
from transfection import REFERENCES, mrna, mrna_50, mrna_large, mrna_points

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.model import read_structure
from pyro_amortized.sampling.importance_weights import importance_estimate
from pyro_amortized.sampling.proposals import FlowProposal

NUM_DRAWS = 2000


def effective_shares(guide, model, cohort, population):
    """Effective share of the guide's own draws, per individual in increasing order."""
    structure = read_structure(model, cohort)
    posterior = guide.individual_posterior(cohort, population, structure)
    rows, generator = torch.arange(len(cohort)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws, log_proposal = FlowProposal(posterior.take).draw(NUM_DRAWS, rows, generator)
        density = structure.log_density(cohort, draws, population)
    log_weights = density.observation + density.individual - log_proposal
    log_weights = torch.where(log_weights.isfinite(), log_weights, -torch.inf)
    return (importance_estimate(log_weights).ess / NUM_DRAWS).sort().values


def trained_guide(model, cohort, budget):
    """A guide and the seconds of its training."""
    begin = time.perf_counter()
    guide = pa.train(model, cohort, budget=budget, seed=1, progress=False)
    print(f"  {guide.history.advice}", flush=True)
    return guide, time.perf_counter() - begin


def shares_row(name, trained, cohort, asked, low=0.0, bounds=(0.9, 0.6)):
    """Ask a guide and the seconds of its training about several population models: the claims."""
    (guide, seconds), claims = trained, {}
    pairs = guide.history.num_pairs
    print(f"{name}: trained {seconds:.0f} s, networks of {pairs:,} pairs", flush=True)
    for label, (model, population) in asked.items():
        shares = effective_shares(guide, model, cohort, population)
        median, lowest = float(shares.median()), float(shares[int(low * len(shares))])
        print(f"  {label:30} effective share: median {median:.3f}, low {lowest:.3f}", flush=True)
        for what, value, bound in zip(("median", "low"), (median, lowest), bounds, strict=True):
            claims[f"{name}, {label}: {what}"] = claim(value, bound, value >= bound)
    return claims


def claim(value, bound, holds):
    return {"value": value, "bound": bound, "holds": bool(holds)}


def fitted_population(model, cohort):
    """The maximum of the marginal likelihood, from a fit without a guide."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        return model, pa.fit_population(model, cohort, seed=1).estimates


def theophylline_row(budget, limits):
    cohort = quickstart.cohort
    asked = {
        "diagonal": fitted_population(quickstart.model, cohort),
        "full Omega": fitted_population(full_omega, cohort),
    }
    trained = trained_guide(quickstart.model, cohort, budget)
    claims = shares_row("theophylline", trained, cohort, asked)
    return claims | new_individuals(trained[0], cohort, asked["diagonal"][1], limits)


def residual_errors_row(budget):
    """One guide of two residual errors, asked with both, and with the additive one alone."""
    cohort = quickstart.cohort
    _, additive = fitted_population(quickstart.model, cohort)
    nearly_none = {"share": torch.tensor(1e-3).double()}
    asked = {
        "combined": fitted_population(combined, cohort),
        "additive": (combined, additive | nearly_none),
    }
    trained = trained_guide(combined, cohort, budget)
    return shares_row("theophylline, two residual errors", trained, cohort, asked)


def new_individuals(guide, cohort, population, limits):
    """Seconds for corrected draws of new individuals, with a limit for each number of them."""
    model = guide.model
    structure, claims = read_structure(model, cohort), {}
    for num, limit in limits.items():
        design = cohort[torch.arange(num) % len(cohort)]
        new = pa.simulate_population(structure, design, population, seed=2)
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pa.AmortizedWarning)
            pa.sample_individuals(
                model, new, population, guide=guide, num_draws=100, refine=False, seed=1
            )
        seconds = time.perf_counter() - begin
        print(f"  {num} new individuals, 100 draws each: {seconds:.2f} s", flush=True)
        claims[f"{num} new individuals, seconds"] = claim(seconds, limit, seconds <= limit)
    return claims


def example_row(name, module, budget):
    example = importlib.import_module(module)
    asked = {"its own": fitted_population(example.model, example.cohort)}
    trained = trained_guide(example.model, example.cohort, budget)
    return shares_row(name, trained, example.cohort, asked)


def mrna_row(budget):
    """Guide of the cells, and fits of 50 and 1,000 cells with it. The low share
    is that of the fifth cell of fifty.
    """
    if not REFERENCES.is_dir():
        print(f"{REFERENCES} is absent: mRNA is left out")
        return {}
    cohort, (population, _, _) = mrna_50(), mrna_points()["saem_best"]
    asked = {"published maximum": (mrna, population)}
    guide, seconds = trained_guide(mrna, cohort, budget)
    claims = shares_row("mRNA", (guide, seconds), cohort, asked, low=0.1, bounds=(0.3, 0.05))
    large = mrna_large()[0]
    for num, cells, limit in ((50, cohort, 3.0), (1000, large[:1000], 20.0)):
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pa.AmortizedWarning)
            fit = pa.fit_population(mrna, cells, guide=guide, seed=1, retrain=False)
        seconds = time.perf_counter() - begin
        print(f"  {num} cells: {seconds:.1f} s, log likelihood {-fit.minus2ll / 2:.1f}", flush=True)
        claims[f"mRNA, {num} cells, seconds"] = claim(seconds, limit, seconds <= limit)
    return claims


def two_modes_row(budget, num_seeds):
    """Individuals whose absorption and elimination may be exchanged: modes with more than 2 % of a
    posterior that the draws of the guide have less than a fifth of, unrefined and refined.
    """
    cohort, claims = modes.simulated(0.1)[0], {}
    guide, seconds = trained_guide(modes.oral, cohort, budget)
    print(f"two modes: trained {seconds:.0f} s", flush=True)
    for sigma in (0.1, 0.03, 0.02):
        cohort, population = modes.simulated(sigma)
        exact = modes.exact(cohort, population, 5_000)[2]
        for refine in (False, True):
            lost, efficiency = 0, []
            for seed in range(num_seeds):
                drawn = pa.sample_individuals(
                    modes.oral, cohort, population, guide=guide, seed=seed, refine=refine
                )
                share = (drawn.weights * modes.is_minor(drawn.unconstrained)).sum(0)
                pairs = ((share, exact), (1 - share, 1 - exact))
                lost += sum(int(((x < y / 5) & (y > 0.02)).sum()) for x, y in pairs)
                efficiency.append(float(drawn.estimate.ess.median()) / drawn.num_draws)
            name = f"sigma {sigma}, {'refined' if refine else 'unrefined'}"
            median = sum(efficiency) / num_seeds
            print(f"  {name}: {lost} modes lost, effective share {median:.2f}", flush=True)
            claims[f"two modes, {name}: lost"] = claim(lost, 0, lost == 0)
    return claims


def oral(cohort):
    """One compartment with absorption, ten values of each individual."""
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.0, 1.0, 3.0]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        error = dist.Normal(f, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", error, obs=y.values)


ORAL_TRUTH = {
    "typical": torch.tensor([0.3, 1.0, 3.2]).double(),
    "omega": torch.tensor([0.5, 0.3, 0.2]).double(),
    "sigma": torch.tensor(0.3).double(),
}


def oral_cohort(num):
    """Simulated individuals."""
    times = torch.tensor([0.25, 0.5, 1, 2, 3, 4, 6, 9, 14, 24]).double().expand(num, -1).clone()
    doses = pa.Doses(torch.zeros(num, 1).double(), torch.full((num, 1), 200.0).double())
    design = pa.Cohort({"concentration": pa.Series(times, torch.ones_like(times))}, doses)
    return pa.simulate_population(pa.read_structure(oral, design), design, ORAL_TRUTH, seed=1)


def scale_row(sizes, processes=100_000):
    """Fits of many individuals without a guide: time, peak memory, and how far the estimates are
    from the population that was simulated; one of them in two processes as well. The times are
    those of one thread.
    """
    claims, seconds = {}, {}
    torch.set_num_threads(1)
    for num in sizes:
        cohort, begin = oral_cohort(num), time.perf_counter()
        fit = pa.fit_population(oral, cohort, seed=1, progress=False)
        seconds[num] = time.perf_counter() - begin
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        errors = fit.covariance.diagonal().sqrt()
        truth = fit.structure.unconstrain_population(ORAL_TRUTH)
        far = float(((fit.vector - truth) / errors).abs().max())
        noise = float((fit.monte_carlo_errors / errors).max())
        print(
            f"  {num:,} individuals: {seconds[num]:.0f} s, {gigabytes:.2f} GB, {fit.num_rounds} "
            f"rounds, farthest estimate {far:.2f} SE, Monte Carlo error {noise:.4f} SE",
            flush=True,
        )
        claims[f"{num} individuals, GB"] = claim(gigabytes, 4.0, gigabytes <= 4)
        claims[f"{num} individuals, Monte Carlo error in SE"] = claim(noise, 0.02, noise <= 0.02)
        claims[f"{num} individuals, farthest estimate in SE"] = claim(far, 3.5, far <= 3.5)
        if num == processes:
            with joblib.parallel_config(backend="loky", n_jobs=2):
                begin = time.perf_counter()
                pa.fit_population(oral, cohort, seed=1, progress=False)
            faster = seconds[num] / (time.perf_counter() - begin)
            print(f"  two processes: {faster:.2f} times as fast", flush=True)
            claims[f"{num} individuals, two processes"] = claim(faster, 1.6, faster >= 1.6)
    first, last = sizes[0], sizes[-1]
    growth = (seconds[last] / seconds[first]) / (last / first)
    claims["growth of time, relative to that of the number"] = claim(growth, 1.2, growth <= 1.2)
    return claims


ROWS = {
    "theophylline": lambda: theophylline_row("115s", {100: 0.2, 10_000: 10.0}),
    "residual errors": lambda: residual_errors_row("115s"),
    "warfarin PK": lambda: example_row("warfarin PK", "warfarin", "115s"),
    "phenobarbital": lambda: example_row("phenobarbital", "phenobarbital", "115s"),
    "warfarin PK/PD": lambda: example_row("warfarin PK/PD", "warfarin_turnover", "115s"),
    "orange": lambda: example_row("orange", "orange", "115s"),
    "mRNA": lambda: mrna_row("290s"),
    "two modes": lambda: two_modes_row("60s", 30),
    "scale": lambda: scale_row((10_000, 100_000)),
}


def main(small, only):
    rows = {"theophylline": lambda: theophylline_row("3s", {100: 0.2})} if small else ROWS
    if only is not None and only not in rows:
        raise SystemExit(f"There is no row {only!r}; there are {list(rows)}.")
    claims = {}
    for name, row in rows.items():
        if only in (None, name):
            claims |= row()
    print(json.dumps({"benchmark": "any_population", "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a short training on theophylline")
    parser.add_argument("--only", help="one row, by its name")
    arguments = parser.parse_args()
    main(arguments.small, arguments.only)
