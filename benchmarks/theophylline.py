"""Theophylline against exact results, from the training to NUTS on the collapsed model.

Prints one table per question and ends in one JSON line. ``--small`` takes a few seconds,
to see that it runs.
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, Importance, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.initialization import init_to_value

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from quickstart import cohort, model

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate
from tests.exact import THEOPHYLLINE as EXACT
from tests.exact import theophylline_population as population
from tests.exact import (
    TRUTH,
    exact_fit,
    exact_log_marginal,
    exact_posterior,
    linear_cohort,
    linear_program,
)


FULL, LINEAR = pa.TrainingOptions(), pa.TrainingOptions(max_epochs=12)
SHORT = pa.TrainingOptions(max_epochs=3, batch_size=128)


@dataclass(frozen=True)
class Size:
    """Sizes of a run. With the pilot and one batch of adaptation, a tenth each, 3,200 draws
    are 3,840 per individual in all.
    """

    simulations: int = 300_000
    linear_simulations: int = 100_000
    options: pa.TrainingOptions = FULL
    linear_options: pa.TrainingOptions = LINEAR
    draws: int = 3200
    fit_draws: int = 4000
    calibrated: int = 500
    calibration_draws: int = 2000
    samples: int = 2000
    tree_depth: int = 10
    starts: int = 4
    retrain: bool | None = None

    def fit(self, program, guide, data):
        """A fit from starts of the prior."""
        return pa.fit_population(
            program,
            data,
            guide=guide,
            num_draws=self.fit_draws,
            num_starts=self.starts,
            retrain=self.retrain,
            seed=1,
        )


SMALL = Size(1000, 1000, SHORT, SHORT, 300, 300, 5, 100, 4, 2, 1, False)


def worst(estimates, exact, error):
    """Largest error in Monte Carlo standard errors, and the root mean square of all of them."""
    z = (estimates - torch.tensor(exact, dtype=torch.float64)) / error
    return float(z.abs().max()), float(z.pow(2).mean().sqrt())


def score(guide, size):
    """-2LL at the given points, per individual, and the moments of the individuals."""
    print(
        f"\n1. -2LL at given points, {size.draws} draws per individual and a fifth of that to adapt"
    )
    print(
        f"{'':4}{'found':>10}{'exact':>10}{'z':>7}{'MC error':>10}{'max |z_i|':>11}{'k max':>7}{'s':>7}"
    )
    result, seconds = {}, 0.0
    for point in ("P1", "P2"):
        exact, at = EXACT[point], population(point)
        begin = time.perf_counter()
        individuals = pa.sample_individuals(
            model, cohort, at, guide=guide, num_draws=size.draws, seed=1
        )
        estimate = individuals.estimate
        took = time.perf_counter() - begin
        total, error = -2 * float(estimate.log_mean.sum()), 2 * float(estimate.mc_error.norm())
        largest, _ = worst(
            -2 * estimate.log_mean, exact["minus2LL_by_subject"], 2 * estimate.mc_error
        )
        z = (total - exact["minus2LL"]) / error
        k = float(estimate.pareto_k.max())
        print(
            f"{point:4}{total:10.4f}{exact['minus2LL']:10.4f}{z:7.2f}{error:10.4f}{largest:11.2f}{k:7.2f}{took:7.2f}"
        )
        mean, sd, mean_error, sd_error = individuals.moments()
        by_mean = worst(mean - at["typical"], exact["eta_mean"], mean_error)
        by_sd = worst(sd, exact["eta_sd"], sd_error)
        print(
            f"    eta means: max |z| {by_mean[0]:.2f}, rms {by_mean[1]:.2f}; sds: max |z| {by_sd[0]:.2f}, rms {by_sd[1]:.2f} (36 each)"
        )
        result[point] = [total, error]
        seconds = max(seconds, took)
    return result, seconds


def fit(guide, size):
    """The maximum-likelihood fit beside the exact one."""
    begin = time.perf_counter()
    fit_result = size.fit(model, guide, cohort)
    seconds = time.perf_counter() - begin
    ml = EXACT["ML"]["ml"]
    exact, exact_se = (torch.tensor(ml[n], dtype=torch.float64) for n in ("x", "se_x"))
    error = (fit_result.vector - exact).abs() / exact_se
    se_error = (fit_result.covariance.diagonal().sqrt() / exact_se - 1).abs()
    print(f"\n2. fit in {seconds:.1f} s, {fit_result.message}")
    print(
        f"   -2LL {fit_result.minus2ll:.4f} (MC error {fit_result.marginal.minus2ll_mc_error:.4f}), exact {EXACT['ML']['minus2LL']:.4f}"
    )
    for j, name in enumerate(ml["x_names"]):
        print(
            f"   {name:12} {float(fit_result.vector[j]):9.4f} exact {float(exact[j]):9.4f}  "
            f"error {float(error[j]):.3f} SE, SE off by {100 * float(se_error[j]):.1f} %"
        )
    return (
        fit_result,
        {
            "minus2ll": fit_result.minus2ll,
            "max_estimate_error_in_se": float(error.max()),
            "max_se_error": float(se_error.max()),
        },
        seconds,
    )


def nuts(guide, fitted, size):
    """NUTS on the collapsed model beside NUTS on the whole one, both started at the fit."""
    num_samples, start = size.samples, {n: x.float() for n, x in fitted.estimates.items()}
    samples, seconds = {}, {}
    phi = fitted.individuals.moments()[0].float()
    for name, program, values in (
        ("collapsed", pa.marginalize(model, guide=guide, population=fitted.estimates), start),
        ("whole", model, start | {"phi": phi}),
    ):
        pyro.set_rng_seed(1)
        kernel = NUTS(
            program,
            init_strategy=init_to_value(values=values),
            max_tree_depth=size.tree_depth,
        )
        chain = MCMC(kernel, num_samples, num_samples // 4, disable_progbar=True)
        begin = time.perf_counter()
        chain.run(cohort)
        seconds[name] = time.perf_counter() - begin
        samples[name] = chain.get_samples()
    print(
        f"\n3. NUTS, {num_samples} samples: collapsed {seconds['collapsed']:.0f} s, whole {seconds['whole']:.0f} s"
    )
    shifts, ratios = [], []
    for name in start:
        a, b = (
            samples[kind][name].reshape(num_samples, -1).double() for kind in ("collapsed", "whole")
        )
        shifts += ((a.mean(0) - b.mean(0)) / b.std(0)).tolist()
        ratios += (a.std(0) / b.std(0)).tolist()
        print(
            f"   {name:8} mean {a.mean(0).numpy().round(3)} {b.mean(0).numpy().round(3)} "
            f"sd {a.std(0).numpy().round(3)} {b.std(0).numpy().round(3)}"
        )
    largest = max(map(abs, shifts)), max(abs(r - 1) for r in ratios)
    print(
        f"   largest shift of a mean {largest[0]:.3f} sd, largest difference of an sd {100 * largest[1]:.1f} %"
    )
    return {"max_mean_shift_in_sd": largest[0], "max_sd_difference": largest[1], "seconds": seconds}


def linear(size):
    """The linear Gaussian mixed model, 30 % of the values missing, against its closed forms."""
    data = linear_cohort()
    guide = pa.train(
        linear_program,
        data,
        num_simulations=size.linear_simulations,
        seed=1,
        options=size.linear_options,
        progress=False,
    )
    num = size.fit_draws
    individuals = pa.sample_individuals(
        linear_program, data, TRUTH, guide=guide, num_draws=num, seed=1
    )
    estimate, exact = individuals.estimate, exact_log_marginal(data, TRUTH)
    z_total = float((estimate.log_mean.sum() - exact.sum()) / estimate.mc_error.norm())
    mean, sd, mean_error, sd_error = individuals.moments()
    exact_mean, covariance = exact_posterior(data, TRUTH)
    by_mean = worst(mean, exact_mean.tolist(), mean_error)
    by_sd = worst(sd, covariance.diagonal(dim1=-2, dim2=-1).sqrt().tolist(), sd_error)
    fit_result = size.fit(linear_program, guide, data)
    vector, value, covariance = exact_fit(data)
    se, own_se = (x.diagonal().sqrt() for x in (covariance, fit_result.covariance))
    result = {
        "log_marginal_z": z_total,
        "posterior_mean_max_z": by_mean[0],
        "posterior_mean_rms_z": by_mean[1],
        "posterior_sd_max_z": by_sd[0],
        "posterior_sd_rms_z": by_sd[1],
        "minus2ll_error": fit_result.minus2ll + 2 * value,
        "minus2ll_mc_error": fit_result.marginal.minus2ll_mc_error,
        "max_estimate_error_in_se": float(((fit_result.vector - vector).abs() / se).max()),
        "max_se_error": float((own_se / se - 1).abs().max()),
    }
    print(
        f"\n4. linear Gaussian mixed model, {data.num_observations} observations of 40 individuals, {num} draws"
    )
    for name, x in result.items():
        print(f"   {name:26} {x:8.4f}")
    return result


def calibration(guide, size):
    """Ranks and coverage by share of missing values."""
    print(
        f"\n5. {size.calibrated} simulated individuals: p-values of uniform ranks, coverage of 50 % and 90 % intervals"
    )
    result = {}
    for share in (0.0, 0.3, 0.6):
        design = pa.Resample(cohort, pa.RandomMissing(share, share))
        calibrated = calibrate(
            guide,
            design,
            num_individuals=size.calibrated,
            num_draws=size.calibration_draws,
            seed=1,
        )
        bad = int((calibrated.pareto_k > 0.7).sum())
        for raw in (False, True):
            p, half, wide = (
                calibrated.p_values(raw=raw),
                calibrated.coverage(0.5, raw=raw),
                calibrated.coverage(0.9, raw=raw),
            )
            label = "raw" if raw else "corrected"
            print(
                f"   {share:4.0%} missing, {label:9} p {_row(p)}  50 % {_row(half)}  90 % {_row(wide)}"
                + ("" if raw else f"  (k > 0.7: {bad})")
            )
            if not raw:
                result[f"{share:.0%}"] = {
                    "p": min(p.values()),
                    "half": half,
                    "wide": wide,
                    "bad_k": bad,
                }
    return result


def _row(values):
    return " ".join(f"{x:5.3f}" for x in values.values())


def swap(guide, fitted):
    """The same program under everything, unchanged."""
    pyro.clear_param_store()
    adam = pyro.optim.Adam({"lr": 0.01})
    scale = torch.linalg.cholesky(fitted.covariance)
    placed = guide.at(fitted.vector, scale)
    done = {
        "SVI, AutoNormal": SVI(model, AutoNormal(model), adam, Trace_ELBO()).step(cohort),
        "SVI, our guide": SVI(model, placed, adam, Trace_ELBO()).step(cohort),
        "Importance": float(Importance(model, placed, 100).run(cohort).get_ESS()),
        "Predictive": len(Predictive(model, guide=placed, num_samples=10)(cohort)["phi"]),
    }
    pyro.clear_param_store()
    print("\n6. the same program, unchanged (loss, loss, ESS of 100 joint weights, draws):", done)
    return all(torch.tensor(list(done.values())).isfinite().tolist())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    size = SMALL if parser.parse_args().small else Size()
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    begin = time.perf_counter()
    guide = pa.train(model, cohort, num_simulations=size.simulations, seed=1, options=size.options)
    trained = time.perf_counter() - begin
    print(f"trained in {trained:.0f} s, validation loss {min(guide.history.validation_loss):.3f}")
    minus2ll, scored = score(guide, size)
    fitted, fit_result, fit_seconds = fit(guide, size)
    result = {
        "minus2ll": minus2ll,
        "fit": fit_result,
        "seconds": {"train": trained, "score": scored, "fit": fit_seconds},
        "linear": linear(size),
        "calibration": calibration(guide, size),
        "swap_in": swap(guide, fitted),
        "nuts": nuts(guide, fitted, size),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
