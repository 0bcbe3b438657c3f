r"""From a program and data to the printed summary, without a guide.

Each row is one fit with default settings: seconds (the import apart), -2LL with its Monte Carlo
error beside the exact one, the largest error of the estimates in standard errors, and that of the
standard errors. Exact values are those of quadrature where there are some; otherwise a second fit
with 20 times the draws stands in for them, whose standard errors are computed with differences for
all mixed derivatives. The last line is JSON with ``claims``. ``--small`` runs
theophylline alone. The sparse data and exact values of phenobarbital are read from
``../shared/references`` and left out where this folder is absent.
"""

import argparse
import importlib
import json
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pandas
import torch

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path[:0] = [str(ROOT), str(EXAMPLES), str(EXAMPLES / "pharmacometrics")]

import quickstart
from first_answer_models import full_omega, interoccasion, interoccasion_cohort, sparse

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.numerics.laplace import laplace_covariance
from pyro_amortized.population.likelihood.expanded_likelihood import ExpandedLikelihood
from pyro_amortized.population.likelihood.expansion_settings import EXPANSION
from pyro_amortized.population.search.information_check import information_check
from tests.exact import THEOPHYLLINE

NUM_DIFFERENCED = 3000  # draws of each individual for the standard errors of a reference
REFERENCES = ROOT.parent / "shared" / "references"


def sparse_cohort(number):
    table = pandas.read_csv(REFERENCES / "sparse" / "data.csv")
    return nlme.read_table(table[table["SET"] == number].drop(columns="SET"), series="y")


def exact_theophylline():
    ml = THEOPHYLLINE["ML"]
    return ml["ml"]["x"], ml["ml"]["se_x"], ml["minus2LL"]


def exact_phenobarbital():
    contents = json.loads((REFERENCES / "phenobarbital" / "exact.json").read_text())
    ml = contents["pheno_WT_prop_ML"]
    return ml["ml"]["x"], ml["ml"]["se_x"], ml["minus2LL"]


def cases(small):
    """Name, model, cohort, limit in seconds, and a function that gives the exact results."""
    yield "theophylline", quickstart.model, quickstart.cohort, 2.0, exact_theophylline
    if small:
        return
    warfarin = importlib.import_module("warfarin")
    yield "warfarin PK", warfarin.model, warfarin.cohort, 4.0, None
    if REFERENCES.is_dir():
        phenobarbital = importlib.import_module("phenobarbital")
        name, limit = "phenobarbital", 4.0
        yield name, phenobarbital.model, phenobarbital.cohort, limit, exact_phenobarbital
        yield "120 x 4 sparse", sparse, sparse_cohort(1), 5.0, None
    else:
        print(f"{REFERENCES} is absent: phenobarbital and the sparse data are left out")
    yield "theophylline, full Omega", full_omega, quickstart.cohort, 10.0, None
    yield "73 x 2 occasions", interoccasion, interoccasion_cohort(), 60.0, None
    turnover = importlib.import_module("warfarin_turnover")
    yield "warfarin PK/PD", turnover.model, turnover.cohort, 30.0, None


def fitted(model, cohort, **options):
    """The fit, and the seconds until its summary is printed."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(model, cohort, seed=1, **options)
    str(fit.summary())
    return fit, time.perf_counter() - begin


def reference(model, cohort, fit, exact):
    """Estimates, standard errors, -2LL and its error: exact, or with 20 times the draws."""
    if exact is not None:
        vector, se, minus2ll = exact()
        return (*(torch.tensor(x, dtype=torch.float64) for x in (vector, se)), minus2ll, 0.0)
    num_draws = 20 * fit.individuals.num_draws
    longer, _ = fitted(model, cohort, num_draws=num_draws, start=fit.estimates)
    error = longer.marginal.minus2ll_mc_error
    covariance = longer.covariance
    if bool(covariance.isfinite().all()):
        covariance = covariance_by_differences(longer)
    return longer.vector, covariance.diagonal().sqrt(), longer.minus2ll, error


def covariance_by_differences(fit):
    """The covariance of the estimates where all mixed derivatives of the observations are
    differences: a regression, which gives them in a fit with many parameters, has an error of its
    own.
    """
    draws, search = fit.individuals.some(NUM_DIFFERENCED), fit.search
    settings = replace(EXPANSION, max_coordinates=1_000)
    likelihood = ExpandedLikelihood(draws, search.scale, settings=settings)
    place = (fit.vector, search.scale, torch.ones_like(fit.estimated))
    check = information_check(search.objective, likelihood, *place)
    return laplace_covariance(search.objective(likelihood), *place, checked=check).covariance


def row(name, model, cohort, limit, exact):
    """Print one row, and give its claims."""
    fit, seconds = fitted(model, cohort)
    vector, se, minus2ll, reference_error = reference(model, cohort, fit, exact)
    mc_error = fit.marginal.minus2ll_mc_error
    z = abs(fit.minus2ll - minus2ll) / (mc_error**2 + reference_error**2) ** 0.5
    known = se.isfinite() & fit.estimated
    off = float(((fit.vector - vector) / se)[known].abs().max())
    ratio = float((fit.covariance.diagonal().sqrt() / se - 1)[known].abs().max())
    print(
        f"{name:26} {seconds:6.1f} s  -2LL {fit.minus2ll:9.3f} +- {mc_error:.3f} ({minus2ll:9.3f})"
        f"  error {off:.3f} SE, of a SE {100 * ratio:.1f} %  {fit.message}",
        flush=True,
    )
    values = {
        "seconds": (seconds, limit),
        "z of -2LL": (z, 3.0),
        "Monte Carlo error of -2LL": (mc_error, 0.1),
        "error of estimates in SE": (off, 0.05),
        "error of standard errors": (ratio, 0.05),
    }
    return {
        f"{name}: {what}": {"value": value, "bound": bound, "holds": value <= bound}
        for what, (value, bound) in values.items()
    }


def main(small, only):
    claims = {}
    for name, *case in cases(small):
        if only in (None, name):
            claims |= row(name, *case)
    if not claims:
        raise SystemExit(f"There is no row {only!r}.")
    print(json.dumps({"benchmark": "first_answer", "claims": claims}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="theophylline alone")
    parser.add_argument("--only", help="one row, by its name")
    arguments = parser.parse_args()
    main(arguments.small, arguments.only)
