r"""Individuals with two narrow modes: absorption and elimination exchanged (flip-flop).

The prediction of one compartment with absorption is the same with ka and CL / V exchanged, so the
second mode of an individual has the same likelihood and another prior density. 16 individuals, a
residual standard deviation of .1, .03 and .02, 30 seeds each: the marginal likelihood, without a
guide, against the exact one. This one comes from 20,000 draws in the first mode alone, to which the
second one is added by the symmetry; no search for modes is needed for it. The last line is JSON
with ``claims``. ``--small`` runs one seed of one residual error.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.sampling.control_variates import controlled_estimate
from tests.sampling.test_minor_modes import POPULATION, TIMES, exact_share, is_minor, oral

NUM = 16


def simulated(sigma):
    """A cohort of individuals from the population, and the population with this residual error."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(2 * NUM, 3 + len(TIMES), generator=generator, dtype=torch.float64)
    phi = POPULATION["typical"] + POPULATION["omega"] * noise[:, :3]
    chosen = (~is_minor(phi)).nonzero()[:NUM, 0]  # their first mode is the larger one
    noise, (ka, cl, v) = noise[chosen], phi[chosen].exp().unbind(-1)
    doses = pa.Doses(torch.zeros(NUM, 1).double(), torch.full((NUM, 1), 100.0).double())
    times = TIMES.expand(NUM, -1)
    clean = nlme.one_compartment(times, doses, ka=ka, cl=cl, v=v)
    cohort = pa.Cohort({"y": pa.Series(times, clean + sigma * noise[:, 3:])}, doses=doses)
    return cohort, POPULATION | {"sigma": torch.tensor(sigma, dtype=torch.float64)}


def exact(cohort, population, num_draws):
    """Log p(y_i | Psi) and its error, and the share of the second mode, shape
    ``(individual,)``.
    """
    drawn = pa.sample_individuals(oral, cohort, population, num_draws=num_draws, seed=99)
    minor = is_minor(drawn.unconstrained)
    share = exact_share(drawn, None)  # of the mode with the slower absorption
    parts = (drawn.unconstrained, drawn.log_proposal)
    first, second = (
        controlled_estimate(*parts, drawn.log_weights.masked_fill(x, -torch.inf)).estimate
        for x in (minor, ~minor)
    )
    by_symmetry = first.log_mean + (share / (1 - share)).log()
    # The symmetry shows whether the second mode was found; its own draws are more accurate.
    agrees = (second.log_mean - by_symmetry).abs() < 0.1
    log_second = torch.where(agrees, second.log_mean, by_symmetry)
    errors = torch.stack(
        [(1 - share) * first.mc_error, share * second.mc_error.nan_to_num(0.1).clamp(max=0.1)]
    )
    errors = errors.nan_to_num(0.0)  # of a mode without any share
    return torch.logaddexp(first.log_mean, log_second), errors.norm(dim=0), share


def row(sigma, seeds, num_draws):
    """Z of -2LL over the seeds, leaving out those in which an individual was named."""
    cohort, population = simulated(sigma)
    expected, error, share = exact(cohort, population, num_draws)
    z, named, begin = [], 0, time.perf_counter()
    for seed in seeds:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = pa.marginal_likelihood(oral, cohort, population, seed=seed)
        difference = -2 * float((result.log_likelihood - expected).sum())
        z.append(
            difference / (result.minus2ll_mc_error**2 + 4 * float(error.square().sum())) ** 0.5
        )
        named += any(issubclass(w.category, pa.AmortizedWarning) for w in caught)
    z = torch.tensor(z)
    spread = float(z.std()) if len(z) > 1 else 0.0
    print(
        f"sigma {sigma}: second modes of {float(share.min()):.1e} to {float(share.max()):.2f}, "
        f"{int((share > 0.02).sum())} above 2 %; exact -2LL +- {2 * float(error.norm()):.3f}, "
        f"errors {result.minus2ll_mc_error:.3f}; z of -2LL: mean {float(z.mean()):.2f}, sd "
        f"{spread:.2f}, largest {float(z.abs().max()):.2f}; an individual named in {named} of "
        f"{len(z)} seeds; {(time.perf_counter() - begin) / len(z):.1f} s each",
        flush=True,
    )
    return spread, float(z.abs().max())


def main(small):
    seeds = range(1 if small else 30)
    claims = {}
    for sigma in (0.1,) if small else (0.1, 0.03, 0.02):
        spread, largest = row(sigma, seeds, 2_000 if small else 20_000)
        claims[f"sd of z, sigma {sigma}"] = (spread, 1.3)
        claims[f"largest z, sigma {sigma}"] = (largest, 4.0)
    rows = {k: {"value": v, "bound": b, "holds": v <= b} for k, (v, b) in claims.items()}
    print(json.dumps({"benchmark": "modes", "claims": rows}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="one seed, to see that it runs")
    main(parser.parse_args().small)
