r"""Training on a GPU beside the CPU of the same machine.

    .venv/bin/python benchmarks/gpu.py [--simulations 200000] [--epochs 4] [--save FOLDER] [--small]

Two problems (theophylline, 10 to 11 values per subject; mRNA cells, 180 values), the same
simulations and steps on each device, at the default batch size and at 4,096, in float32 and with
``autocast=torch.bfloat16``; the CPU with all its cores. Ends in one JSON line: seconds of training
(without simulation), steps per second, last validation loss. Where there is no GPU it says so and
times the CPU alone. ``--save`` trains the guide of ``population.py`` on the GPU for five minutes. The mRNA cells are read
from ../shared/references; where these are not, theophylline alone is timed.
"""

import argparse
import json
import platform
import sys
import warnings
from pathlib import Path

import torch

import pyro_amortized as pa

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]

import population
import quickstart


def settings():
    kinds = [("cpu", None)]
    if torch.cuda.is_available():
        kinds += [("cuda", None), ("cuda", torch.bfloat16)]
    return kinds


def one(program, cohort, arguments, batch_size, device, autocast):
    options = pa.TrainingOptions(
        batch_size=batch_size,
        max_epochs=arguments.epochs,
        device=device,
        autocast=autocast,
        num_threads=None if device == "cpu" else 1,
    )
    guide = pa.train(
        program,
        cohort,
        num_simulations=arguments.simulations,
        options=options,
        seed=1,
        progress=False,
    )
    history = guide.history
    return {
        "seconds": history.training_seconds,
        "simulation_seconds": history.simulation_seconds,
        "steps_per_second": history.num_steps / history.training_seconds,
        "validation_loss": history.validation_loss[history.best_check],
    }


def save_guide(folder):
    """Train the guide of the mRNA data on the GPU and keep it."""
    options = pa.TrainingOptions(device="cuda")
    guide = pa.train(
        population.mrna,
        population.mrna_50(),
        budget="5min",
        seed=1,
        sharpen=False,
        options=options,
        progress=False,
    )
    guide.save(folder)
    print(f"saved: {guide.history.num_steps} steps, {guide.history.stopped}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    sizes = (512, 4096)
    if arguments.small:
        arguments.simulations, arguments.epochs, sizes = 600, 1, (64,)
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(
        f"GPU: {gpu}; CPU: {torch.get_num_threads()} threads; torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        flush=True,
    )
    problems = {"theophylline": (quickstart.model, quickstart.cohort)}
    if population.REFERENCES.is_dir():
        problems["mrna"] = (population.mrna, population.mrna_50())
    else:
        print(f"The mRNA data are not there ({population.REFERENCES}): skipped.")
    rows = {}
    print(f"{'':14s}{'batch':>6s}  {'device':18s}{'seconds':>9s}{'steps/s':>9s}{'loss':>9s}")
    for name, (program, cohort) in problems.items():
        for batch_size in sizes:
            for device, autocast in settings():
                label = f"{device}{' bfloat16' if autocast else ''}"
                row = one(program, cohort, arguments, batch_size, device, autocast)
                rows[f"{name}/{batch_size}/{label}"] = row
                print(
                    f"{name:14s}{batch_size:6d}  {label:18s}{row['seconds']:9.1f}"
                    f"{row['steps_per_second']:9.1f}{row['validation_loss']:9.3f}",
                    flush=True,
                )
    if arguments.save and torch.cuda.is_available() and "mrna" in problems:
        save_guide(arguments.save)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
