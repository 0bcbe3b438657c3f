"""Death and relapse after a treatment: only the first of them is seen.

Each cause has a hazard, and a patient's frailty acts on both. The treatment halves the hazard of
relapse and leaves that of death as it is. The cumulative incidence is the share of the patients
who have had an event of a cause (Aalen and Johansen), in the data and in simulations from the fit:
the shares of both causes and of the patients without an event add up to one. The curve of Kaplan
and Meier for one cause alone, in which the other cause counts as a loss to follow-up, does not.
The values are simulated.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots

TRUTH = {
    "scale": torch.tensor(2.3),
    "shape": torch.tensor(1.5),
    "rate": torch.tensor(-1.4),
    "treatment": torch.tensor(-0.7),
    "omega": torch.tensor(0.5),
}


# (model begins)
def model(cohort):
    scale = pyro.sample("scale", dist.Normal(2.0, 1.0))  # of death, log of years
    shape = pyro.sample("shape", dist.LogNormal(0.3, 0.5))
    rate = pyro.sample("rate", dist.Normal(-1.0, 1.0))  # of relapse, log per year
    treatment = pyro.sample("treatment", dist.Normal(0.0, 1.0))  # log of the ratio of hazards
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    event, cause = cohort["event"], cohort["cause"]
    treated = cohort.covariates["treated"]
    with pyro.plate("individual", len(cohort)):
        frailty = pyro.sample("frailty", dist.Normal(0.0, omega))
        death = nlme.weibull_hazard((scale - frailty / shape).exp(), shape)
        relapse = nlme.exponential_hazard((rate + treatment * treated + frailty).exp())
        either = pyro.sample("event", nlme.EventTimes(death + relapse, event), obs=event.values)
        law = nlme.cause_of_event(either, death, relapse).mask(cause.observed).to_event(1)
        pyro.sample("cause", law, obs=cause.values)


# (model ends)


def simulated(num=200, seed=1):
    """Two arms, five years of follow-up: 0 is no event, 1 a death and 2 a relapse."""
    end = torch.full((num,), 5.0).double()
    series = {
        "event": nlme.event_series(end, torch.zeros(num)),
        "cause": pa.Series(end.unsqueeze(-1), torch.zeros(num, 1).double()),
    }
    design = pa.Cohort(series, covariates={"treated": torch.arange(num).remainder(2).double()})
    truth = {n: x.double() for n, x in TRUTH.items()}
    return pa.simulate_population(pa.read_structure(model, design), design, truth, seed=seed)


def main(output, num):
    cohort = simulated(num)
    causes = cohort["cause"].values[:, 0]
    print(f"Of {num} patients {int((causes == 1).sum())} have died before a relapse.")
    # One event says little about the variance of a frailty: it is held.
    fit = pa.fit_population(model, cohort, fixed={"omega": TRUTH["omega"].double()}, seed=1)
    print(fit.summary())
    ratio, error = (float(x["treatment"]) for x in (fit.estimates, fit.standard_errors))
    print(f"log of the ratio of the hazards of relapse: {ratio:.2f}, standard error {error:.2f}")
    output.mkdir(parents=True, exist_ok=True)
    figure = plots.cumulative_incidences(
        fit, names=["death", "relapse"], stratify="treated", num_simulations=300
    )
    figure.savefig(output / "competing_causes.png", dpi=110)
    print("The shares of both causes are those of the fit.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=200)
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals)
