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

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from after_fit_doses import ORAL, WARFARIN, attainment, claim, closed_forms, oral, published

import pyro_amortized as pa
from pyro_amortized import nlme

WARFARIN_TIMES = [0.5, 1, 2, 6, 24, 36, 72, 120]
# PopED, reduced information, first-order: relative standard errors in per cent of CL, V, KA, their
# variances, and the variance of the residual error (vignette of the warfarin example).
POPED = [4.738, 2.756, 13.926, 25.627, 30.344, 25.777, 11.171]


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
