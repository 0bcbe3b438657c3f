r"""Training engine against peers and exact posteriors.

    python benchmarks/training.py --sbi PYTHON --bayesflow PYTHON [--problems ...] [--small]

PYTHON are the interpreters of the peers' environments (``benchmarks/requirements.txt``); a peer
without one is left out, and said so. Runs are started two at a time, each bound to one core, in an
order that alternates the peers. Prints a table and, as its last line, JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from problems import PROBLEMS, Reference, grid_reference, log_joint, sampled_reference
import pyro_amortized as pa

HERE = Path(__file__).parent
POOL = 2_000_000
SLOW_POOL = 400_000


def prepare(problem, folder, small):
    """Validation data, exact posteriors and the pool of simulations that the peers read."""
    num_val, num_ref, num_draws = (500, 50, 4) if small else (5000, 1000, 8)
    theta, cohort = problem.draw(num_val, 777)
    if len(problem.loc) == 2:
        reference = grid_reference(problem, cohort[:num_ref], num_draws, 778)
    else:
        num_ref = 20 if small else 300
        guide = pa.train(
            problem.model,
            problem.design,
            budget="20s" if small else "2min",
            seed=99,
            sharpen=False,
            training_distribution=problem.training,
            progress=False,
        )
        size = 5_000
        reference = sampled_reference(problem, guide, cohort[:num_ref], num_draws, 778, size)
    torch.save(reference.__dict__, folder / f"{problem.name}.ref")
    size = 2000 if small else (SLOW_POOL if problem.name == "fitzhugh_nagumo" else POOL)
    pools = [
        problem.draw(min(100_000, size - start), 10_000 + start)
        for start in range(0, size, 100_000)
    ]
    arrays = {
        "theta": torch.cat([t for t, _ in pools]),
        "x": torch.cat([problem.features(c) for _, c in pools]),
        "theta_val": theta,
        "x_val": problem.features(cohort),
        "times": problem.times,
        "theta_ref": reference.draws.transpose(0, 1),
        "x_ref": problem.features(cohort[:num_ref]),
    }
    np.savez(folder / f"{problem.name}.npz", **{n: x.float().numpy() for n, x in arrays.items()})
    print(
        f"{problem.name}: floor {-float(reference.log_prob.mean()):.4f}, smallest ESS of the reference {reference.ess:.0f}",
        flush=True,
    )


def ours(problem, minutes, folder, out):
    """Train for a budget and score; run in a process of its own."""
    begin = time.perf_counter()
    guide = pa.train(
        problem.model,
        problem.design,
        budget=60 * minutes,
        seed=1,
        sharpen=False,  # the networks alone, as those of the peers
        training_distribution=problem.training,
        progress=False,
    )
    wall = time.perf_counter() - begin
    score(problem, guide, folder, out)
    history = guide.history
    print(
        json.dumps(
            {
                "minutes": minutes,
                "simulations": history.num_simulations,
                "steps": history.num_steps,
                "ms_per_step": 1e3 * history.training_seconds / max(history.num_steps, 1),
                "wall_s": round(wall, 1),
            }
        ),
        flush=True,
    )


def score(problem, guide, folder, out):
    """Log densities at the truth and at the reference draws, and the corrected moments."""
    data = np.load(folder / f"{problem.name}.npz")
    reference = Reference(**torch.load(folder / f"{problem.name}.ref", weights_only=True))
    num = len(data["theta_val"])
    theta, cohort = problem.draw(num, 777)
    none, part = torch.zeros(0), slice(0, len(reference.mean))
    posterior = guide.posterior.condition(cohort[part], none)
    torch.manual_seed(0)
    draws = posterior.rsample((1000,))
    log_weights = log_joint(problem, guide.structure, cohort[part], draws) - posterior.log_prob(
        draws
    )
    weights = log_weights.softmax(0)
    ess = 1 / (weights**2).sum(0) / 1000
    log_marginal = log_weights.logsumexp(0) - np.log(1000)
    np.savez(
        out,
        true=guide.posterior.condition(cohort, none).log_prob(theta),
        ref=posterior.log_prob(reference.draws.transpose(0, 1)),
        mean=draws.mean(0),
        sd=draws.std(0),
        ess=ess,
        log_marginal=log_marginal,
        mean_corrected=(weights.unsqueeze(-1) * draws).sum(0),
    )


def measure(answer, reference):
    """Errors of one run against the exact posteriors."""
    log_q = torch.as_tensor(answer["ref"]).double().reshape(reference.log_prob.T.shape)
    gap = (reference.log_prob.T - log_q).mean(0)
    mean, sd = (torch.as_tensor(answer[n]).double() for n in ("mean", "sd"))

    def rms(x):
        return float(x.pow(2).mean().sqrt())

    row = {
        "nll": -float(np.mean(answer["true"])),
        "kl": float(gap.mean()),
        "kl_error": float(gap.std() / len(gap) ** 0.5),
        "mean_error_sd": rms((mean - reference.mean) / reference.sd),
        "log_sd_error": rms((sd / reference.sd).log()),
    }
    if "ess" in answer:
        error = torch.as_tensor(answer["log_marginal"]) - reference.log_marginal
        corrected = torch.as_tensor(answer["mean_corrected"])
        row |= {
            "median_ess": float(np.median(answer["ess"])),
            "log_marginal_median_error": float(error.abs().median()),
            "log_marginal_rms_error": rms(error),
            "corrected_mean_error_sd": rms((corrected - reference.mean) / reference.sd),
        }
    return row


@dataclass
class Job:
    """One run of one library on one problem, with one or more budgets of time."""

    problem: str
    label: str
    command: list[str]
    minutes: list[float]
    core: int = 0
    process: subprocess.Popen | None = None


def jobs(arguments, folder):
    """All runs, peers alternating. The longest run only on the conversion reaction, and of the peers
    only with the better learning rate; the time-series network only there.
    """
    all_jobs = []
    for name in arguments.problems:
        first = name == "conversion_reaction"
        long = arguments.minutes if first or arguments.all_minutes else arguments.minutes[:2]
        short = long if arguments.all_minutes else long[:2]
        data, out = str(folder / f"{name}.npz"), str(folder / f"{name}.{{label}}.{{minutes}}.npz")
        own_command = [sys.executable, __file__, "--folder", str(folder), "--one", name]
        rows = [[Job(name, "ours", [*own_command, "--minutes", str(m)], [m]) for m in long]]
        if arguments.sbi:
            script = [arguments.sbi, str(HERE / "peers/sbi_npe.py"), data]
            rates = [("sbi_tuned", "3e-3", long), ("sbi", "5e-4", short)]
            for label, rate, times in rates[: 1 if arguments.tuned_only else 2]:
                target = out.format(label=label, minutes="{}")
                command = [*script, target, "--learning-rate", rate, "--minutes", *map(str, times)]
                rows.append([Job(name, label, command, times)])
        if arguments.bayesflow:
            script = [arguments.bayesflow, str(HERE / "peers/bayesflow_flow.py"), data]
            kinds = [
                ("bayesflow_tuned", ["--learning-rate", "3e-3"], long),
                ("bayesflow", [], short[-1:]),
            ]
            kinds += [("bayesflow_series", ["--series"], short[-1:])] if first else []
            for label, more, times in kinds[: 1 if arguments.tuned_only else 3]:
                target = out.format(label=label, minutes="{}")
                rows.append(
                    [
                        Job(name, label, [*script, target, *more, "--minutes", str(m)], [m])
                        for m in times
                    ]
                )
        longest = max(len(r) for r in rows)
        all_jobs += [r[j] for j in range(longest) for r in rows if j < len(r)]
    return all_jobs


def run_all(queue):
    """Two at a time, each on a core of its own."""
    waiting, running = list(queue), []
    free = sorted(os.sched_getaffinity(0))
    while waiting or running:
        while free and waiting:
            job = waiting.pop(0)
            job.core = free.pop(0)
            core = job.core
            job.process = subprocess.Popen(
                job.command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}),
            )
            running.append(job)
        for job in [j for j in running if j.process.poll() is not None]:
            running.remove(job)
            free.append(job.core)
            text, errors = job.process.communicate()
            if job.process.returncode:
                print(f"{job.problem} {job.label} failed:\n{errors[-2000:]}", flush=True)
            yield job, [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        time.sleep(0.5)


def main(arguments, folder):
    for name in arguments.problems:
        if not (folder / f"{name}.npz").is_file():
            prepare(PROBLEMS[name], folder, arguments.small)
    table = {name: {} for name in arguments.problems}
    heading = f"{'':20}{'':18}{'min':>5}{'nll':>9}{'kl':>9}{'mean err':>10}{'log sd err':>11}{'sims':>11}{'steps':>8}{'ms/step':>8}"
    print(heading, flush=True)
    for job, notes in run_all(jobs(arguments, folder)):
        reference = Reference(**torch.load(folder / f"{job.problem}.ref", weights_only=True))
        for note in notes:
            key = f"{note['minutes']:g}"
            row = (
                measure(np.load(folder / f"{job.problem}.{job.label}.{key}.npz"), reference) | note
            )
            table[job.problem].setdefault(job.label, {})[key] = row
            print(
                f"{job.problem:20}{job.label:18}{key:>5}{row['nll']:9.4f}{row['kl']:9.4f}{row['mean_error_sd']:10.3f}{row['log_sd_error']:11.3f}{row['simulations']:11,}{row['steps']:8,}{row['ms_per_step']:8.2f}",
                flush=True,
            )
            if "median_ess" in row:
                print(
                    f"{'':38}corrected, 1,000 draws: median ESS {row['median_ess']:.3f}, log marginal likelihood median |error| {row['log_marginal_median_error']:.4f}, rms {row['log_marginal_rms_error']:.4f}, mean error {row['corrected_mean_error_sd']:.3f} sd",
                    flush=True,
                )
    print(json.dumps(table))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sbi", help="interpreter of an environment with sbi")
    parser.add_argument("--bayesflow", help="interpreter of an environment with bayesflow and jax")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument(
        "--all-minutes", action="store_true", help="the longest run for every problem"
    )
    parser.add_argument(
        "--tuned-only", action="store_true", help="leave out the peers' default rates"
    )
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    if parsed.small:
        parsed.problems, parsed.minutes = ["conversion_reaction"], [0.05]
    if parsed.one:
        m = parsed.minutes[0]
        ours(PROBLEMS[parsed.one], m, parsed.folder, parsed.folder / f"{parsed.one}.ours.{m:g}.npz")
    else:
        if not (parsed.sbi and parsed.bayesflow):
            print(
                "left out for want of an environment:",
                [n for n in ("sbi", "bayesflow") if not getattr(parsed, n)],
            )
        with tempfile.TemporaryDirectory() as temporary:
            place = parsed.folder or Path(temporary)
            place.mkdir(parents=True, exist_ok=True)
            main(parsed, place)
