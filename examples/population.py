"""One guide, several population models of theophylline: covariates, residual errors, uncertainty.

The script trains one guide on the largest model. Then it fits and compares smaller models without
training again.
"""

import argparse
import time

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import datasets, nlme


# (model begins)
def population_model(weight=False, combined=False):
    """Population models of the same individual parameters: log ka, log CL, log V."""

    def model(cohort):
        typical = pyro.sample(
            "typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1)
        )
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
        a = pyro.sample("a", dist.HalfNormal(1.0))
        b = pyro.sample("b", dist.HalfNormal(0.3)) if combined else torch.zeros(())
        mean = typical
        if weight:  # clearance grows with weight
            slope = pyro.sample("slope", dist.Normal(0.75, 1.0))
            shift = slope * (cohort.covariates["weight"] / 70).log()
            mean = typical + torch.stack([0 * shift, shift, 0 * shift], -1)
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
            ka, cl, v = phi.exp().unbind(-1)
            series = cohort["concentration"]
            predicted = nlme.one_compartment(series.times, cohort.doses, ka=ka, cl=cl, v=v)
            distribution = nlme.combined_error(predicted, a[..., None], b[..., None])
            pyro.sample(
                "concentration", distribution.mask(series.observed).to_event(1), obs=series.values
            )

    return model


# (model ends)
def main(budget, num_replicates):
    # (fits begin)
    cohort = datasets.theophylline()
    base, combined = population_model(), population_model(combined=True)
    guide = pa.train(combined, cohort, budget=budget, seed=1, progress=False)

    fits = {
        "base": pa.fit_population(base, cohort, guide=guide, seed=1),
        "combined error": pa.fit_population(combined, cohort, guide=guide, seed=1),
        "weight on CL": pa.fit_population(
            population_model(weight=True), cohort, guide=guide, seed=1
        ),
    }
    print(pa.compare(fits))
    print(pa.likelihood_ratio_test(fits["base"], fits["combined error"]))
    # (fits end)

    # (uncertainty begins)
    fit = fits["base"]
    profile = pa.profile_likelihood(fit, "omega[0]")
    bootstrap = pa.bootstrap(fit, num_replicates=num_replicates, seed=1)
    population = pa.sample_population(fit, num_draws=200, num_proposals=500, seed=1)
    print("standard errors of omega")
    print("  observed information", fit.standard_errors["omega"].numpy().round(3))
    print("  sandwich            ", fit.robust_standard_errors["omega"].numpy().round(3))
    print("  bootstrap           ", bootstrap.standard_errors["omega"].numpy().round(3))
    print("  posterior           ", population.draws["omega"].std(0).numpy().round(3))
    print(f"profile interval of omega[0]: {profile.lower:.3f} to {profile.upper:.3f}")
    # (uncertainty ends)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--replicates", type=int, default=100)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    main(arguments.budget, arguments.replicates)
    print(f"{time.perf_counter() - begin:.0f} s in all")
