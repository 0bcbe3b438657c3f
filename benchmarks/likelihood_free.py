r"""The likelihood-free estimator beside exact results and the corrected one.

    .venv/bin/python benchmarks/likelihood_free.py [--simulations 200000] [--cohorts 20] [--small]

Three models, 40 individuals each, whose likelihood is known although two of them are simulated:

* the linear Gaussian model of the tests (a closed form);
* an Ornstein-Uhlenbeck process, dx = a (level - x) dt + kappa dW, by ``euler_maruyama``, observed at
  ten times with noise: its *twin* is the multivariate normal distribution of the same steps;
* immigration and death of molecules, observed exactly at eight times: its twin sums over the
  survivors.

The twin is fitted with the correction, by the same guide: the difference of the two fits is what
the missing density costs. Bias per individual: error of log p(y_i | Psi + 2 SE) - log p(y_i | Psi).
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from likelihood_free_models import (
    COUNT_TIMES,
    COUNT_TRUTH,
    SDE_TIMES,
    SDE_TRUTH,
    design,
    diffusion_program,
    diffusion_twin,
    simulated,
    stochastic_program,
    stochastic_twin,
)
from tests.exact import exact_fit, exact_log_marginal, linear_cohort, linear_program

OPTIONS = {"learn_shared": True}


# What is measured.


def errors_of(fit, exact, error):
    return ((fit.vector - exact) / error).tolist(), (
        fit.covariance.diagonal().sqrt() / error - 1
    ).tolist()


def show(label, values):
    print(f"  {label:34s} " + "  ".join(f"{x:+.3f}" for x in values), flush=True)


def linear(size):
    cohort = linear_cohort()
    begin = time.perf_counter()
    guide = train(linear_program, cohort, size)
    vector, _, covariance = exact_fit(cohort)
    error = covariance.diagonal().sqrt()
    names = ["mean[0]", "mean[1]", "omega[0]", "omega[1]", "sigma"]
    print(f"\nLinear Gaussian, {time.perf_counter() - begin:.0f} s of training: {names}")
    results = {}
    for estimator in ("corrected", "likelihood-free"):
        begin = time.perf_counter()
        fit = pa.fit_population(
            linear_program,
            cohort,
            guide=guide,
            num_draws=size.fit_draws,
            estimator=estimator,
            num_starts=size.starts,
            retrain=size.retrain,
            seed=1,
        )
        seconds = time.perf_counter() - begin
        shift, wide = errors_of(fit, vector, error)
        print(f" {estimator} ({seconds:.1f} s)")
        show("estimate off, in standard errors", shift)
        show("standard error off, relative", wide)
        bias, rms = bias_of(guide, cohort, vector, error, estimator, size.draws)
        show("bias per individual, mean (nats)", bias)
        show("bias per individual, rms (nats)", rms)
        results[estimator] = {
            "estimates": shift,
            "standard_errors": wide,
            "bias_mean": bias,
            "bias_rms": rms,
            "seconds": seconds,
        }
    return results


def bias_of(guide, cohort, vector, error, estimator, num_draws):
    """Mean and root mean square over the individuals of the error of a difference of the log
    likelihood: two standard errors from the estimates, in every direction.
    """
    at = guide.structure.constrain_population
    bias, rms = [], []
    for direction in torch.diag_embed(error):
        there = at(vector + 2 * direction)
        exact = exact_log_marginal(cohort, there) - exact_log_marginal(cohort, at(vector))
        log_likelihoods = [
            pa.marginal_likelihood(
                linear_program, cohort, p, guide=guide, estimator=estimator, num_draws=num_draws
            ).log_likelihood
            for p in (there, at(vector))
        ]
        off = log_likelihoods[0] - log_likelihoods[1] - exact
        bias.append(float(off.mean()))
        rms.append(float(off.pow(2).mean().sqrt()))
    return bias, rms


def train(program, cohort, size):
    return pa.train(
        program,
        cohort,
        num_simulations=size.simulations,
        options=size.options,
        seed=1,
        networks=pa.Networks(**OPTIONS),
        progress=False,
    )


def beside_twin(label, program, twin, truth, times, size):
    begin = time.perf_counter()
    empty = design(times, size.individuals)
    guide = train(program, empty, size)
    seconds = time.perf_counter() - begin
    calibration = calibrate(guide, empty, num_individuals=size.calibrated, num_draws=500, seed=2)
    expected = guide.structure.unconstrain_population({k: v.double() for k, v in truth.items()})
    offs, wides, covered, covered_twin = [], [], [], []
    for seed in range(size.cohorts):
        cohort = simulated(program, truth, times, size.individuals, 100 + seed)
        free, exact = (size.fit(x, guide, cohort) for x in (program, twin))
        assert (free.estimator, exact.estimator) == ("likelihood-free", "corrected")
        if not (free.estimated.all() and exact.estimated.all()):
            print(f"  cohort {seed}: {free.message} | {exact.message}; left out")
            continue
        error = exact.covariance.diagonal().sqrt()
        off, wide = errors_of(free, exact.vector, error)
        offs.append(off)
        wides.append(wide)
        own = free.covariance.diagonal().sqrt()
        covered.append(((free.vector - expected).abs() < 1.96 * own).tolist())
        covered_twin.append(((exact.vector - expected).abs() < 1.96 * error).tolist())
    p = calibration.p_values(raw=True)
    print(f"\n{label}, {seconds:.0f} s of training, {len(offs)} cohorts of {size.individuals}")
    print(f"  parameters {list(truth)}; rank tests of the guide, p {p}")
    if not offs:  # a guide as poor as that of a small run may leave nothing to compare
        return {"training_seconds": seconds, "cohorts": 0, "p_values": p}
    off, wide = torch.tensor(offs), torch.tensor(wides)
    rows = {
        "bias": ("estimate off the twin's, mean (SE)", off.mean(0)),
        "rms": ("estimate off the twin's, rms (SE)", off.pow(2).mean(0).sqrt()),
        "standard_errors": ("standard error off, mean", wide.mean(0)),
        "coverage": ("95 % intervals hold the truth", torch.tensor(covered).double().mean(0)),
        "coverage_twin": ("the twin's", torch.tensor(covered_twin).double().mean(0)),
    }
    for text, values in rows.values():
        show(text, values.tolist())
    counts = {"training_seconds": seconds, "cohorts": len(offs), "p_values": p}
    return counts | {name: values.tolist() for name, (_, values) in rows.items()}


FULL = pa.TrainingOptions()
SHORT = pa.TrainingOptions(max_epochs=3, batch_size=128)


@dataclass(frozen=True)
class Size:
    """Sizes of a run."""

    simulations: int = 200_000
    cohorts: int = 20
    individuals: int = 40
    options: pa.TrainingOptions = FULL
    draws: int = 2000
    fit_draws: int | None = None
    twin_draws: int = 500
    calibrated: int = 1000
    starts: int = 4
    retrain: bool | None = None

    def fit(self, program, guide, cohort):
        """A fit of one of a pair of models, whose guide is not trained further."""
        return pa.fit_population(
            program,
            cohort,
            guide=guide,
            num_draws=self.twin_draws,
            num_starts=self.starts,
            retrain=False,
            seed=1,
        )


SMALL = Size(2000, 1, 10, SHORT, 50, 50, 50, 10, 1, False)


def run(size=Size(), only=("linear", "sde", "counts")):
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    results = {}
    if "linear" in only:
        results["linear"] = linear(size)
    if "sde" in only:
        results["sde"] = beside_twin(
            "Ornstein-Uhlenbeck by Euler-Maruyama",
            diffusion_program,
            diffusion_twin,
            SDE_TRUTH,
            SDE_TIMES,
            size,
        )
    if "counts" in only:
        results["counts"] = beside_twin(
            "Immigration and death, stochastic simulation",
            stochastic_program,
            stochastic_twin,
            COUNT_TRUTH,
            COUNT_TIMES,
            size,
        )
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=200_000)
    parser.add_argument("--cohorts", type=int, default=20)
    parser.add_argument("--only", default="linear,sde,counts")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    only = ["counts"] if arguments.small else arguments.only.split(",")
    size = SMALL if arguments.small else Size(arguments.simulations, arguments.cohorts)
    print(json.dumps(run(size, only)))


if __name__ == "__main__":
    main()
