"""Seizure counts of 59 patients: Poisson, negative binomial and zero-inflated models compared.

The data are counts over four periods before and during treatment (Thall and Vail 1990). The method
of Laplace is biased for small counts; here the marginal likelihood is that of the model.
"""

import argparse
from pathlib import Path

import pandas
import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import plots

DATA = Path(__file__).parents[1] / "data" / "epilepsy.csv"


def read():
    table = pandas.read_csv(DATA)
    patients = [rows for _, rows in table.groupby("subject", sort=False)]

    def column(name):
        return torch.tensor([rows[name].to_list() for rows in patients]).double()

    first = {n: column(n)[:, 0] for n in ("progabide", "base")}
    return pa.Cohort(
        {"seizures": pa.Series(column("period"), column("seizures"))},
        covariates={"treatment": first["progabide"], "log_baseline": (first["base"] / 4).log()},
    )


# (models begin)
def model(cohort, kind):
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = pyro.sample("slope", dist.Normal(1.0, 1.0))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    if kind != "Poisson":
        extra = pyro.sample("extra", dist.LogNormal(0.0, 1.5))
    known = cohort.covariates
    mean = intercept + slope * known["log_baseline"] + effect * known["treatment"]
    with pyro.plate("individual", len(cohort)):
        log_rate = pyro.sample("log_rate", dist.Normal(mean, omega))
        counts = cohort["seizures"]
        rate = log_rate.exp()[..., None].expand(counts.values.shape)
        if kind == "Poisson":
            distribution = dist.Poisson(rate)
        elif kind == "negative binomial":  # `extra` is the size: the variance is m + m^2 / size
            size = extra[..., None].expand(rate.shape)
            distribution = dist.NegativeBinomial(size, logits=rate.log() - size.log())
        else:  # `extra` is the odds of a period without any seizure
            odds = extra[..., None].expand(rate.shape)
            distribution = dist.ZeroInflatedPoisson(rate, gate=odds / (1 + odds))
        distribution = distribution.mask(counts.observed).to_event(1)
        pyro.sample("seizures", distribution, obs=counts.values)


# (models end)


def main(output):
    cohort, fits = read(), {}
    for kind in ("Poisson", "negative binomial", "zero-inflated Poisson"):
        fits[kind] = pa.fit_population(lambda c, kind=kind: model(c, kind), cohort, seed=1)
    print(pa.compare(fits))
    output.mkdir(parents=True, exist_ok=True)
    best = fits["negative binomial"]
    figure = plots.category_shares(best, num_simulations=300, num_bins=4)
    figure.savefig(output / "seizure_counts.png", dpi=110)
    print("The negative binomial model describes the spread of the counts.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    main(parser.parse_args().output)
