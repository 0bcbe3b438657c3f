r"""Incomplete data: every encoding on every experiment, against exact posteriors.

    python benchmarks/missing_data.py [--rows NAME ...] [--scale 1.0] [--small] [--folder KEEP]

Every run is a process of its own, bound to one core, two at a time: at most a million simulations and
the stated minutes, the same for all encodings of an experiment. Afterwards 1,000 fresh data sets: the
uncorrected guide, and its corrected draws, against the exact posterior. Prints a table, one split by
the number of missing values, and as its last line JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "examples" / "missing_data"))
from exact_posteriors import REFERENCES, physical
from missing_data_rows import EXPERIMENTS
from scipy.stats import chisquare
import pyro_amortized as pa
from pyro_amortized.sampling.importance_weights import normalized_weights

NUM, SMALL_NUM = 1000, 20
SEED = 777


def fresh(experiment, structure, num):
    """Parameters (unconstrained) and incomplete data sets."""
    generator = torch.Generator().manual_seed(SEED)
    design = experiment.design
    plan = design.complete(num, generator)
    truth = structure.draw_individuals(plan, {}, 1, generator)[0]
    cohort, failed = structure.simulate(plan, truth, torch.zeros(num, 0), {}, generator)
    kept = (~failed).nonzero()[:, 0]
    return truth[kept], design.missing(cohort[kept], generator)


def structure_of(experiment):
    return pa.read_structure(
        experiment.model, experiment.design(64, torch.Generator().manual_seed(0))
    )


def write_reference(experiment, num, path):
    structure = structure_of(experiment)
    truth, cohort = fresh(experiment, structure, num)
    begin = time.perf_counter()
    reference = REFERENCES[experiment.reference](experiment, structure, cohort, truth)
    _, log_jacobian = structure.constrain(cohort, truth, {})
    reference["log_jacobian"] = log_jacobian
    torch.save(reference, path)
    floor = -float((reference["log_true"] - log_jacobian).mean())
    print(
        f"{experiment.name}: floor {floor:.3f} (published {experiment.floor}), {reference['note']}, {time.perf_counter() - begin:.0f} s",
        flush=True,
    )


def rank_p(draws, truth, num_bins=20):
    """p-values of uniform ranks among 99 draws, by parameter."""
    ranks = (draws[:99] < truth).sum(0)
    counts = [torch.bincount(r * num_bins // 100, minlength=num_bins) for r in ranks.T]
    return [float(chisquare(c.numpy()).pvalue) for c in counts]


def log_q_of(experiment, variant, guide, structure, cohort, truth):
    """Log density of the truth, and a function that gives raw draws."""
    torch.manual_seed(0)
    if variant.answer is None:
        posterior = guide.individual_posterior(cohort, {})
        return posterior.log_prob(truth), posterior.rsample((1000,))
    return variant.answer(experiment, guide, structure, cohort, truth)


def run_one(experiment, variant, minutes, num, folder, out):
    """Train for a budget, compare with the reference; in a process of its own."""
    design = variant.design or experiment.design
    guide = pa.train(
        experiment.model,
        design,
        num_simulations=experiment.num_simulations if num == NUM else 2_000,
        budget=60 * minutes * (0.5 if variant.sharpened else 1.0),
        seed=1,
        networks=variant.networks,
        options=pa.TrainingOptions(num_workers=0, num_noise=experiment.num_noise),
        progress=False,
    )
    if variant.sharpened:
        guide = pa.sharpen(
            guide, design, num_simulations=200_000, budget=30 * minutes, seed=1, progress=False
        )
    structure = guide.structure
    truth, cohort = fresh(experiment, structure, num)
    with torch.no_grad():
        log_q, raw = log_q_of(experiment, variant, guide, structure, cohort, truth)
        values = physical(structure, cohort, raw)
    _, log_jacobian = structure.constrain(cohort, truth, {})
    row = {
        "minutes": minutes,
        "simulations": guide.history.num_simulations,
        "steps": guide.history.num_steps,
        "nll": float((log_jacobian - log_q).mean()),
        "rank_p": min(rank_p(raw, truth)),
    }
    path, exact = folder / f"{experiment.name}.ref", None
    if path.is_file():
        exact = torch.load(path, weights_only=False)
        row |= beside_reference(experiment, cohort, log_q, values, exact)
    if structure.has_density and variant.answer is None:
        few = slice(0, experiment.num_corrected)
        known = {n: x[few] for n, x in exact.items() if n != "note"} if exact else None
        row |= corrected(guide, cohort[few], truth[few], known)
    out.write_text(json.dumps(row))


def beside_reference(experiment, cohort, log_q, values, exact):
    """Errors of the log density and of the moments against the reference."""
    gap = exact["log_true"] - log_q
    count = missing_count(cohort)
    return {
        "excess_nll": float(gap.mean()),
        "excess_error": float(gap.std() / len(gap) ** 0.5),
        "mean_error_sd": rms((values.mean(0) - exact["mean"]) / exact["sd"]),
        "log_sd_error": rms((values.std(0) / exact["sd"]).log()),
        "by_missing": {
            f"{low}-{high}": round(float(gap[(count >= low) & (count <= high)].mean()), 4)
            for low, high in experiment.bands
            if ((count >= low) & (count <= high)).any()
        },
    }


def corrected(guide, cohort, truth, exact):
    """The same for the draws that the model's own density corrects."""
    with torch.no_grad():
        individuals = pa.sample_individuals(
            guide.model, cohort, {}, guide=guide, num_draws=1000, seed=1
        )
        values = physical(guide.structure, cohort, individuals.unconstrained)
    weights = normalized_weights(individuals.log_weights).unsqueeze(-1)
    mean = (weights * values).sum(0)
    sd = (weights * (values - mean) ** 2).sum(0).sqrt()
    row = {"median_ess": float(individuals.estimate.ess.median()) / individuals.num_draws}
    row["corrected_rank_p"] = min(rank_p(individuals.resampled(99, 3), truth))
    if exact is not None:
        error = individuals.estimate.log_mean - exact["log_marginal"]
        z = error / (
            individuals.estimate.mc_error**2 + exact["log_marginal_error"] ** 2
        ).sqrt().clamp(min=1e-6)
        row |= {
            "corrected_mean_error_sd": rms((mean - exact["mean"]) / exact["sd"]),
            "corrected_log_sd_error": rms((sd / exact["sd"]).log()),
            "log_marginal_rms_error": rms(error),
            "log_marginal_rms_z": rms(z),
            "log_marginal_share_within_3": float((z.abs() < 3).double().mean()),
            "num_poor_k": int((individuals.estimate.pareto_k > 0.7).sum()),
        }
    return row


def rms(x):
    return float(x.pow(2).mean().sqrt())


def missing_count(cohort):
    observed = cohort["y"].observed
    observed = observed if observed.dim() == 2 else observed.any(-1)
    return (~observed).sum(1)


# Scheduling: a core each.


def child(arguments, core):
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {core}))


def run_all(jobs):
    """Run command lines, one per core."""
    cores = sorted(os.sched_getaffinity(0))
    running = {}
    jobs = list(jobs)
    while jobs or running:
        for core in cores:
            if core in running and running[core].poll() is not None:
                if running[core].returncode:
                    print("FAILED", running[core].args[2:], flush=True)
                del running[core]
            if core not in running and jobs:
                running[core] = child(jobs.pop(0), core)
        time.sleep(0.2)


COLUMNS = [
    "minutes",
    "nll",
    "excess_nll",
    "excess_error",
    "mean_error_sd",
    "log_sd_error",
    "rank_p",
    "median_ess",
    "corrected_mean_error_sd",
    "corrected_log_sd_error",
    "log_marginal_rms_error",
    "log_marginal_rms_z",
    "corrected_rank_p",
    "num_poor_k",
]


def show(results):
    names = [
        "min",
        "nll",
        "excess",
        "+-",
        "mean/sd",
        "log sd",
        "rank p",
        "ESS",
        "c mean/sd",
        "c log sd",
        "logZ rms",
        "logZ z",
        "c rank p",
        "poor k",
    ]
    print("\n| experiment | encoding | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for experiment, rows in results.items():
        for label, row in rows.items():
            cells = [f"{row[c]:.3g}" if c in row else "-" for c in COLUMNS]
            if "excess_nll" in row:
                cells[2] = f"{row['excess_nll']:.4f}"
            print(f"| {experiment} | {label} | " + " | ".join(cells) + " |")
    print("\n| experiment | encoding | excess by number missing |\n|---|---|---|")
    for experiment, rows in results.items():
        for label, row in rows.items():
            if "by_missing" in row:
                parts = "; ".join(f"{k}: {v:.3f}" for k, v in row["by_missing"].items())
                print(f"| {experiment} | {label} | {parts} |")


def result_file(folder, name, label):
    return folder / f"{name}--{label.replace(' ', '_').replace('/', '_')}.json"


def all_results(rows, encodings, folder, common):
    """Run what has no file in the folder, and read the files."""
    place = ["--folder", folder, *common]
    run_all(
        ["--reference", e.name, *place]
        for e in rows
        if e.reference and not (folder / f"{e.name}.ref").is_file()
    )
    files = {
        (e.name, label): result_file(folder, e.name, label)
        for e in rows
        for label in e.variants
        if not encodings or label in encodings
    }
    run_all(["--one", *key, *place] for key, path in files.items() if not path.is_file())
    results = {}
    for (name, label), path in files.items():
        if path.is_file():
            results.setdefault(name, {})[label] = json.loads(path.read_text())
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--encodings", nargs="*")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all budgets")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep references and results here; what is there is not run again",
    )
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.small:
        arguments.rows, arguments.encodings = ["conversion_3"], ["recommended"]
    scale = 0.01 if arguments.small else arguments.scale
    num = SMALL_NUM if arguments.small else NUM
    common = ["--small"] if arguments.small else ["--scale", arguments.scale]
    if arguments.reference:
        experiment = EXPERIMENTS[arguments.reference]
        return write_reference(experiment, num, arguments.folder / f"{experiment.name}.ref")
    if arguments.one:
        name, label = arguments.one
        experiment = EXPERIMENTS[name]
        out = result_file(arguments.folder, name, label)
        variant = experiment.variants[label]
        return run_one(experiment, variant, experiment.minutes * scale, num, arguments.folder, out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [EXPERIMENTS[name] for name in arguments.rows]
        results = all_results(rows, arguments.encodings, folder, common)
    show(results)
    print(json.dumps(results))
    return None


if __name__ == "__main__":
    main()
