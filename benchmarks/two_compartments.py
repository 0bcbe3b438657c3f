r"""The population posterior of a model of two compartments, beside that of Stan.

Data (120 individuals, seven infusions, 39 samples each) and the posterior of Stan with Torsten are
read from ``../shared/references/iv_two_compartments``. ``AmortizedMCMC`` draws 1,000 populations
without a guide. The table shows means and standard deviations beside Stan's, and the effective
draws a second, everything included. The last line is JSON with ``claims``. ``--small`` uses six
individuals, to see that it runs.
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

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import pyro_amortized as pa
from pyro_amortized import nlme

FOLDER = ROOT.parent / "shared" / "references" / "iv_two_compartments"
MEDIANS = torch.tensor([4.0, 70.0, 4.0, 50.0])
# Effective draws a second of Stan on the machine of the reference.
STAN_SPEED = 16.3


def model(cohort):
    typical = pyro.sample("typical", dist.LogNormal(MEDIANS.log(), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((4,), 0.4)).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(4, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        scale = omega.unsqueeze(-1) * correlation
        phi = pyro.sample("phi", dist.MultivariateNormal(typical.log(), scale_tril=scale))
        cl, vc, q, vp = phi.exp().unbind(-1)
        y = cohort["y"]
        prediction = nlme.two_compartments(y.times, cohort.doses, cl=cl, v=vc, q=q, v2=vp)
        noise = nlme.lognormal_error(prediction, sigma[..., None])
        pyro.sample("y", noise.mask(y.observed).to_event(1), obs=y.values)


def read(small):
    table = pandas.read_csv(FOLDER / "data.csv")
    table["DV"] = pandas.to_numeric(table["DV"], errors="coerce")
    if small:
        table = table[table["ID"] <= 6]
    return nlme.read_table(table, series="y")


def columns(samples):
    """Draws of the parameters that the reference has, by its names."""
    names = ("TVCL", "TVVC", "TVQ", "TVVP")
    result = dict(zip(names, samples["typical"].double().unbind(-1), strict=True))
    result |= {f"omega[{i + 1}]": x for i, x in enumerate(samples["omega"].double().unbind(-1))}
    return result | {"sigma": samples["sigma"].double().flatten()}


def main(small):
    if not FOLDER.is_dir():
        raise SystemExit(f"{FOLDER} is absent: this benchmark needs its data.")
    cohort = read(small)
    begin = time.perf_counter()
    mcmc = pa.AmortizedMCMC(model, num_samples=100 if small else 1000, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        mcmc.run(cohort)
    samples = mcmc.get_samples()
    seconds = time.perf_counter() - begin
    fit, draws = mcmc.mode, mcmc.draws
    print(f"{seconds:.1f} s; {fit.message}; ESS {draws.ess:.0f}, k {draws.pareto_k:.2f}")
    stan = pandas.read_csv(FOLDER / "stan.csv").set_index("parameter")
    mean_errors, sd_errors = [], []
    for name, x in columns(samples).items():
        mean, sd = float(stan.loc[name, "mean"]), float(stan.loc[name, "sd"])
        mean_errors.append(abs(float(x.mean()) - mean) / sd)
        sd_errors.append(abs(float(x.std()) / sd - 1))
        print(
            f"{name:10} mean {float(x.mean()):9.4f} (Stan {mean:9.4f}, {mean_errors[-1]:.3f} sd)"
            f"  sd {float(x.std()):8.5f} ({sd:8.5f}, {100 * sd_errors[-1]:.1f} %)"
        )
    speed = min(draws.ess, len(draws.vectors)) / seconds
    rows = {
        "error of means in sd": (max(mean_errors), 0.1, max(mean_errors) <= 0.1),
        "error of sds": (max(sd_errors), 0.1, max(sd_errors) <= 0.1),
        "effective draws a second": (speed, STAN_SPEED, speed >= STAN_SPEED),
        "Pareto k": (draws.pareto_k, 0.7, math.isfinite(draws.pareto_k) and draws.pareto_k <= 0.7),
    }
    claims = {k: dict(zip(("value", "bound", "holds"), v, strict=True)) for k, v in rows.items()}
    print(json.dumps({"benchmark": "two_compartments", "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="six individuals")
    main(parser.parse_args().small)
