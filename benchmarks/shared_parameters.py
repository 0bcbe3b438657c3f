r"""Effects that the individuals can compensate for: draws that follow the population.

A linear model with an effect d of the group g of an individual,

.. math:: y_{ij} = a_i + b_i t_j + d g_i + e_{ij},

in four ways of writing it, against its closed form; the same with d for everybody, which the data do
not determine; two logistic models whose parameters are partly shared. Fits use no guide and 1,000
draws. The last line is JSON with ``claims``. ``--small`` runs one seed of some cases.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import pyro_amortized as pa
from pyro_amortized.numerics.maximization import maximize, observed_information

NUM, TIMES = 40, torch.linspace(0, 2, 8, dtype=torch.float64)
GROUP = (torch.arange(NUM) % 2).double()
DESIGN = torch.stack([torch.ones_like(TIMES), TIMES], -1)
NAMES = ("mean[0]", "mean[1]", "d", "omega[0]", "omega[1]", "sigma")


def simulated(omega, sigma):
    """A cohort with standard deviations omega and omega / 2 of the individual parameters."""
    generator = torch.Generator().manual_seed(99)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sd = torch.tensor([omega, omega / 2], dtype=torch.float64)
    lines = torch.tensor([1.0, 0.5], dtype=torch.float64) + sd * normal(NUM, 2)
    values = lines @ DESIGN.T + 0.7 * GROUP[:, None] + sigma * normal(NUM, len(TIMES))
    series = pa.Series(TIMES.expand(NUM, -1).clone(), values)
    return pa.Cohort({"y": series}, covariates={"group": GROUP})


def population_sites():
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    d = pyro.sample("d", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    return mean, d, omega, sigma


def observe(cohort, intercept, slope, shift, sigma):
    y = cohort["y"]
    prediction = intercept[..., None] + slope[..., None] * y.times + shift[..., None]
    noise = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
    pyro.sample("y", noise, obs=y.values)


def in_observations(cohort):
    """The effect acts on the observations."""
    mean, d, omega, sigma = population_sites()
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        intercept, slope = phi.unbind(-1)
        observe(cohort, intercept, slope, d * cohort.covariates["group"], sigma)


def in_individuals(cohort):
    """The effect acts on the mean of the individual parameters."""
    mean, d, omega, sigma = population_sites()
    with pyro.plate("individual", len(cohort)):
        shift = d[..., None] * torch.stack(
            [cohort.covariates["group"], torch.zeros(len(cohort))], -1
        )
        phi = pyro.sample("phi", dist.Normal(mean + shift, omega).to_event(1))
        intercept, slope = phi.unbind(-1)
        observe(cohort, intercept, slope, torch.zeros_like(intercept), sigma)


def not_centred(cohort):
    """The individual parameters are standardised: every population parameter is shared."""
    mean, d, omega, sigma = population_sites()
    with pyro.plate("individual", len(cohort)):
        eta = pyro.sample("eta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        intercept, slope = (mean + omega * eta).unbind(-1)
        observe(cohort, intercept, slope, d * cohort.covariates["group"], sigma)


def for_everybody(cohort):
    """The effect acts on all individuals alike: only its sum with the mean is determined."""
    mean, d, omega, sigma = population_sites()
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        intercept, slope = phi.unbind(-1)
        observe(cohort, intercept, slope, d.expand(intercept.shape), sigma)


WAYS = {
    "effect in the observations": in_observations,
    "effect on the individuals": in_individuals,
    "not centred": not_centred,
}


def closed_form(cohort):
    """The log likelihood as a function of vectors in the order of NAMES, the last three being
    logarithms, shape ``(*, 6)``.
    """
    y = cohort["y"].values.double()

    def log_likelihood(v):
        v = v.unsqueeze(-2)  # one row for all individuals
        scale = v[..., 3:5].exp().unsqueeze(-2)
        noise = v[..., 5].exp().pow(2)[..., None, None] * torch.eye(8)
        covariance = (DESIGN * scale**2) @ DESIGN.T + noise
        mean = v[..., :2] @ DESIGN.T + v[..., 2:3] * GROUP[:, None]
        return dist.MultivariateNormal(mean, covariance).log_prob(y).sum(-1)

    return log_likelihood


def exact_fit(cohort, omega, sigma):
    """Maximum of the closed-form likelihood and the standard errors, in the order of NAMES."""
    log_likelihood = closed_form(cohort)
    logs = torch.tensor([omega, omega / 2, sigma], dtype=torch.float64).log()
    start = torch.cat([torch.tensor([1.0, 0.5, 0.7], dtype=torch.float64), logs])
    best = maximize(log_likelihood, start, scale=torch.full((6,), 0.1))
    covariance = torch.linalg.inv(observed_information(log_likelihood, best.vector, 1e-3))
    return best.vector, covariance.diagonal().sqrt(), -2 * best.value


def exact_posterior(cohort, num=50_000):
    """Means and standard deviations of the posterior in the order of NAMES, by importance sampling
    from a Student-t distribution about the maximum of the likelihood.
    """
    vector, se, _ = exact_fit(cohort, 1.0, 0.3)
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(num, 6, generator=generator, dtype=torch.float64)
    chi2 = torch.randn(num, 5, generator=generator, dtype=torch.float64).pow(2).sum(-1) / 5
    z = normal / chi2.sqrt().unsqueeze(-1)
    draws = vector + 1.3 * se * z
    log_proposal = -0.5 * (5 + 6) * torch.log1p(z.pow(2).sum(-1) / 5)
    # The priors of `population_sites`, with the Jacobian of the logarithms.
    log_prior = -0.5 * (draws[:, :3] / 2).pow(2).sum(-1) + draws[:, 3:].sum(-1)
    log_prior = log_prior - 0.5 * draws[:, 3:].exp().pow(2).sum(-1)
    log_likelihood = torch.cat([closed_form(cohort)(x) for x in draws.split(1000)])
    weights = (log_likelihood + log_prior - log_proposal).softmax(0).unsqueeze(-1)
    mean = (weights * draws).sum(0)
    return mean, (weights * (draws - mean).pow(2)).sum(0).sqrt(), float(1 / weights.pow(2).sum())


def posterior(omega, sigma, small):
    """Largest errors of ``AmortizedMCMC``, of means in sds and of sds, over the three ways; in a
    small run, of the second way alone.
    """
    cohort, worst, num_samples = simulated(omega, sigma), [], 100 if small else 1000
    mean, sd, ess = exact_posterior(cohort, 2_000 if small else 50_000)
    for way in list(WAYS)[1:2] if small else WAYS:
        model = WAYS[way]
        begin = time.perf_counter()
        mcmc = pa.AmortizedMCMC(model, num_samples, seed=1)
        mcmc.run(cohort)
        draws = mcmc.get_samples()
        parts = [draws["mean"], draws["d"][:, None], draws["omega"].log(), draws["sigma"].log()]
        draws = torch.cat([x.double().reshape(num_samples, -1) for x in parts], 1)
        off = float(((draws.mean(0) - mean) / sd).abs().max())
        ratio = float((draws.std(0) / sd - 1).abs().max())
        worst.append((off, ratio))
        print(
            f"omega {omega} sigma {sigma}  {way:28} posterior: largest error of a mean {off:.3f} "
            f"sd, of an sd {100 * ratio:.1f} %, {time.perf_counter() - begin:.1f} s (exact: ESS "
            f"{ess:.0f})",
            flush=True,
        )
    return [max(x) for x in zip(*worst, strict=True)]


def in_order(fit, names):
    """Estimates and standard errors of a fit in the order of some names."""
    order = [fit.structure.population_names.index(name) for name in names]
    return fit.vector[order], fit.covariance.diagonal()[order].sqrt()


def timed_fit(model, cohort, seed, **options):
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(model, cohort, seed=seed, **options)
    return fit, time.perf_counter() - begin


def determined(omega, sigma, seeds, num_draws):
    """Largest errors of the three ways over the seeds."""
    cohort = simulated(omega, sigma)
    vector, se, minus2ll = exact_fit(cohort, omega, sigma)
    worst = []
    for way, model in WAYS.items():
        for seed in seeds:
            fit, seconds = timed_fit(model, cohort, seed, num_draws=num_draws)
            estimate, error = in_order(fit, NAMES)
            off = float(((estimate - vector) / se).abs().max())
            ratio = float((error / se - 1).abs().nan_to_num(9.0).max())
            z = (fit.minus2ll - minus2ll) / fit.marginal.minus2ll_mc_error
            worst.append((off, ratio))
            print(
                f"omega {omega} sigma {sigma}  {way:28} seed {seed}: largest error {off:.3f} SE, "
                f"of a SE {100 * ratio:.1f} %, z of -2LL {z:5.2f}, {seconds:.1f} s"
                f"{'' if fit.converged else '  NOT CONVERGED: ' + fit.message}",
                flush=True,
            )
    return [max(x) for x in zip(*worst, strict=True)]


def undetermined(omega, sigma, seeds, num_draws):
    """How many fits name the effect and the mean, and give them no standard error."""
    cohort, named = simulated(omega, sigma), 0
    for seed in seeds:
        fit, seconds = timed_fit(for_everybody, cohort, seed, num_draws=num_draws)
        _, error = in_order(fit, ("mean[0]", "d"))
        ok = bool((~error.isfinite()).all()) and "mean[0]" in fit.message and "d" in fit.message
        named += ok
        print(f"for everybody, seed {seed}: {fit.message} ({seconds:.1f} s)", flush=True)
    return named


def main(small):
    seeds, num_draws = range(1 if small else 10), 100 if small else 1000
    claims = {}
    for omega, sigma in ((1.0, 0.1), (0.6, 0.4)):
        off, ratio = determined(omega, sigma, seeds, num_draws)
        claims[f"error of estimates, omega {omega}"] = (off, 0.05, off <= 0.05)
        claims[f"error of standard errors, omega {omega}"] = (ratio, 0.05, ratio <= 0.05)
        off, ratio = posterior(omega, sigma, small)
        claims[f"posterior means, omega {omega}"] = (off, 0.1, off <= 0.1)
        claims[f"posterior sds, omega {omega}"] = (ratio, 0.1, ratio <= 0.1)
        if small:
            break
    named = undetermined(1.0, 0.1, seeds, num_draws)
    claims["undetermined effects named"] = (named, len(seeds), named == len(seeds))
    rows = {k: dict(zip(("value", "bound", "holds"), v, strict=True)) for k, v in claims.items()}
    print(json.dumps({"benchmark": "shared_parameters", "claims": rows}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="one seed, to see that it runs")
    main(parser.parse_args().small)
