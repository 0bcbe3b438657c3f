r"""A Pyro user's hierarchical logistic regression, beside NUTS: 60 groups of 20 binary values.

The program has arguments and a plate of its own and runs as it is under ``MCMC(NUTS(program))``;
``pa.adapt`` makes it one of a cohort. ``AmortizedMCMC`` without a guide is compared with NUTS:
seconds, posterior means (in posterior standard deviations) and standard deviations of the
population, means of the groups, ``arviz.loo``, and ``arviz.compare`` with a program whose slope is
the same in all groups. The last line is JSON with ``claims``. ``--small`` has 12 groups and some
draws, to see that it runs.
"""

import argparse
import json
import time
import warnings

import arviz
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

import pyro_amortized as pa
from pyro_amortized.diagnostics import to_arviz

NUM_VALUES = 20
# Bounds: errors of 1,000 independent draws and of a chain with some hundred effective draws.
MEAN_ERROR, GROUP_ERROR, SD_RATIO, LOO_ERROR = 0.25, 0.15, 0.2, 2.0


def program(x, y=None):
    center = pyro.sample("center", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("groups", len(x)):
        b = pyro.sample("b", dist.Normal(center, spread).to_event(1))
        logits = b[..., 0, None] + b[..., 1, None] * x
        pyro.sample("obs", dist.Bernoulli(logits=logits).to_event(1), obs=y)


def one_slope(x, y=None):
    center = pyro.sample("center", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("groups", len(x)):
        b = pyro.sample("b", dist.Normal(center[..., 0], spread))
        logits = b[..., None] + center[..., 1, None] * x
        pyro.sample("obs", dist.Bernoulli(logits=logits).to_event(1), obs=y)


def arguments(cohort):
    return cohort.time_varying["x"].values, cohort["y"].values


def adapted(model):
    return pa.adapt(model, arguments, plate="groups", observations={"obs": "y"})


def simulated(num, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, NUM_VALUES, generator=generator)
    b = torch.randn(num, 2, generator=generator) * torch.tensor([0.8, 0.5])
    b = b + torch.tensor([-0.5, 1.0])
    y = torch.bernoulli(torch.sigmoid(b[:, :1] + b[:, 1:] * x), generator=generator)
    number = torch.arange(float(NUM_VALUES)).expand(num, -1)
    return pa.Cohort({"y": pa.Series(number, y)}, time_varying={"x": pa.Series(number, x)})


def timed(chain, *data):
    begin = time.perf_counter()
    chain.run(*data)
    return {n: x.double() for n, x in chain.get_samples().items()}, time.perf_counter() - begin


def loo_of_chain(chain, x, y):
    """Leave-one-out of the chain's own draws, from the log likelihood of every value."""
    b = chain["b"]
    logits = b[..., :1] + b[..., 1:] * x
    log_likelihood = dist.Bernoulli(logits=logits).log_prob(y.double()).flatten(1)[None]
    draws = {n: chain[n].numpy()[None] for n in ("center", "spread")}
    data = arviz.from_dict(posterior=draws, log_likelihood={"y": log_likelihood.numpy()})
    return float(arviz.loo(data, var_name="y").elpd_loo)


def claims_of(errors, ratios, loo):
    """Errors of means in standard deviations, ratios of these, and a difference of elpd_loo."""
    population = torch.cat([errors["center"], errors["spread"]])
    groups = float(errors["b"].square().mean().sqrt())
    values = {
        "largest error of a population mean, sd": (float(population.abs().max()), MEAN_ERROR),
        "rms error of the means of groups, sd": (groups, GROUP_ERROR),
        "largest error of a population sd, relative": (float((ratios - 1).abs().max()), SD_RATIO),
        "difference of elpd_loo from the chain's": (abs(loo), LOO_ERROR),
    }
    return {k: {"value": v, "bound": b, "holds": v <= b} for k, (v, b) in values.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="some groups and draws")
    parser.add_argument("--seed", type=int, default=0)
    sizes = parser.parse_args()
    num, warmup, samples, draws = (12, 10, 20, 100) if sizes.small else (60, 300, 600, 1000)
    warnings.simplefilter("ignore")
    cohort = simulated(num, sizes.seed)
    x, y = arguments(cohort)
    ours = pa.AmortizedMCMC(adapted(program), draws, seed=1, progress=False)
    samples_of_ours, seconds = timed(ours, cohort)
    pyro.set_rng_seed(2)
    depth = 3 if sizes.small else 10
    kernel = NUTS(program, max_tree_depth=depth)
    nuts, of_nuts = timed(MCMC(kernel, samples, warmup, disable_progbar=True), x, y)
    other = pa.AmortizedMCMC(adapted(one_slope), draws, seed=1, progress=False)
    timed(other, cohort)
    data = {"both vary": to_arviz(ours), "one slope": to_arviz(other)}
    loo = float(arviz.loo(data["both vary"], var_name="y").elpd_loo)
    ranks = arviz.compare(data, var_name="y")
    groups = arviz.compare(data, var_name="individual_log_likelihood")
    print(ranks, groups, sep="\n")
    found = {n: (samples_of_ours[n], nuts[n]) for n in ("center", "spread", "b")}
    errors = {n: (a.mean(0) - b.mean(0)) / b.std(0) for n, (a, b) in found.items()}
    ratios = torch.cat([found[n][0].std(0) / found[n][1].std(0) for n in ("center", "spread")])
    print(f"seconds: AmortizedMCMC {seconds:.1f}, NUTS {of_nuts:.1f}")
    for name in ("center", "spread"):
        print(name, *(f"{x.mean(0).tolist()} sd {x.std(0).tolist()}" for x in found[name]))
    reference = loo_of_chain(nuts, x, y)
    print(f"elpd_loo {loo:.1f}, of the chain {reference:.1f}")
    claims = claims_of(errors, ratios, loo - reference)
    print(json.dumps({"benchmark": "logistic_groups", "claims": claims}))


if __name__ == "__main__":
    main()
