r"""Cells whose molecules are stochastic, fitted without a density.

The mRNA of a transfected cell decays and is translated from an unknown time on, both as chemical
Langevin equations,

.. math:: dm = -\delta m\,dt + \sqrt{\delta m}\,dW_1, \qquad
          dp = (k m - \gamma p)\,dt + \sqrt{k m + \gamma p}\,dW_2 ,

in Euler-Maruyama steps of a quarter of an hour. 40 cells are observed at 60 times; offset and error
are shared by all. No density of the observations is known: the guide learns it (likelihood-free).

The benchmark trains, fits, and calibrates: the truth within the intervals of the fit, ranks of new
cells, and coverage in groups of cells by what the guide says of them. The last line is JSON with
``claims``. ``--small`` is a short training whose figures mean nothing.
"""

import argparse
import json
import time
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Series, nlme
from pyro_amortized.diagnostics import calibrate

NUM_TIMES, NUM_MOLECULES = 60, 100.0
TRUTH = {
    "typical": torch.tensor([-0.7, -3.0, 1.0, -0.2]).double(),
    "omega": torch.tensor([0.2, 0.4, 0.3, 0.2]).double(),
    "offset": torch.tensor(2.0).double(),
    "sigma": torch.tensor(0.08).double(),
}


def drift(t, x, p):
    m, protein = x.clamp(min=0).unbind(-1)
    on = (t >= p["t0"]).to(x)
    return on[:, None] * torch.stack([-p["delta"] * m, p["k"] * m - p["gamma"] * protein], -1)


def diffusion(t, x, p):
    m, protein = x.clamp(min=0).unbind(-1)
    on = (t >= p["t0"]).to(x)
    rates = torch.stack([p["delta"] * m, p["k"] * m + p["gamma"] * protein], -1)
    return on[:, None] * rates.sqrt()


def cells(cohort):
    center, sd = torch.tensor([-0.5, -3.0, 1.0, 0.0]), torch.tensor([0.5, 0.7, 0.7, 0.5])
    typical = pyro.sample("typical", dist.Normal(center, sd).to_event(1))
    omega = pyro.sample("omega", dist.LogNormal(torch.tensor(-1.2), 0.5).expand([4]).to_event(1))
    offset = pyro.sample("offset", dist.LogNormal(0.7, 0.5))
    sigma = pyro.sample("sigma", dist.LogNormal(-2.5, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        names = ("delta", "gamma", "k", "t0")
        parameters = dict(zip(names, phi.exp().unbind(-1), strict=True))
        y, start = cohort["y"], torch.tensor([NUM_MOLECULES, 0.0])
        path = nlme.euler_maruyama(drift, diffusion, start, y.times, parameters, num_steps=120)
        protein = path[..., 1].clamp(min=0)
        mean = (protein + offset.expand(len(cohort))[:, None]).log()
        error = dist.Normal(mean, sigma.expand(len(cohort))[:, None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def simulated_cells(num=40, seed=3):
    """Cells at the truth."""
    times = torch.linspace(0.5, 30, NUM_TIMES).double().expand(num, -1).clone()
    empty = Cohort({"y": Series(times, torch.zeros_like(times))})
    return pa.simulate_population(pa.read_structure(cells, empty), empty, TRUTH, seed)


def claim(value, bound, holds):
    return {"value": value, "bound": bound, "holds": bool(holds)}


def calibration_claims(guide, cohort, num):
    """Ranks of new cells, and coverage in thirds by posterior mean and standard deviation."""
    result = calibrate(guide, cohort, num_individuals=num, seed=5, progress=False)
    p_values = result.p_values(raw=True)
    least = min(p_values.values()) * len(p_values)
    coverages = []
    inside = (result.raw_levels - 0.5).abs() <= 0.45
    for column, name in enumerate(result.names):
        for what, values in (("mean", result.means), ("sd", result.sds)):
            thirds = np.array_split(values[:, column].argsort().numpy(), 3)
            shares = [float(inside[rows, column].double().mean()) for rows in thirds]
            print(f"  90 % of {name} by {what}: {' '.join(f'{x:.3f}' for x in shares)}")
            coverages += shares
    allowed = 3.5 * (0.09 / (len(inside) / 3)) ** 0.5  # largest of 24 groups, by chance
    farthest = max(abs(x - 0.9) for x in coverages)
    print(
        f"  p-values of the ranks: { ({n: round(p, 3) for n, p in p_values.items()}) }", flush=True
    )
    return {
        "stochastic cells, smallest p-value of the ranks": claim(least, 0.01, least >= 0.01),
        "stochastic cells, farthest coverage of 90 %": claim(farthest, allowed, farthest < allowed),
    }


def claims(budget="300s", num_cells=40, num_calibrated=1000, **options):
    """Training, fit and calibration."""
    cohort, begin = simulated_cells(num_cells), time.perf_counter()
    guide = pa.train(cells, cohort, budget=budget, seed=1, progress=False)
    trained = time.perf_counter() - begin
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(cells, cohort, guide=guide, seed=1, progress=False, **options)
    seconds = time.perf_counter() - begin
    print(fit.summary())
    truth = fit.structure.unconstrain_population(TRUTH)
    z = (fit.vector - truth) / fit.covariance.diagonal().sqrt()
    outside = int((z.abs() > 1.96).sum() + z.isnan().sum())
    print(f"  trained {trained:.0f} s, {seconds:.0f} s in all; z of the truth {z.tolist()}")
    print(f"  {outside} of {len(z)} intervals without the truth", flush=True)
    return {
        "stochastic cells, seconds": claim(seconds, 600.0, seconds <= 600),
        "stochastic cells, converged": claim(fit.converged, True, fit.converged),
        # With right intervals, three or more of ten miss the truth once in 90 fits.
        "stochastic cells, intervals without the truth": claim(outside, 2, outside <= 2),
    } | calibration_claims(guide, cohort, num_calibrated)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a short training")
    small = parser.parse_args().small
    found = claims("2s", 3, 60, num_draws=50, num_starts=1) if small else claims()
    print(json.dumps({"benchmark": "stochastic_cells", "claims": found}))
