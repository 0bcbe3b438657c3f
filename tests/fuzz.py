"""Fuzzing of the readers: ``python -m tests.fuzz --minutes 5``.

Mutates whole files (flipped, cut, repeated and swapped bytes, numbers made huge) and tables of the
corpus. A reader may give an answer or an ``AmortizedError``; anything else is printed with the
content that provoked it, kept in ``tests/corpus`` if it is a table, and ends in exit status 1.
"""

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.numerics.gaussians import Gaussians
from pyro_amortized.training.simulation.shard_store import SimulationStore
from pyro_amortized.training.simulation.training_sets import TrainingSet
from tests.exact import linear_cohort, linear_program

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Reader:
    """A reader of one file: where it lies, what it holds when it is whole, and who reads it."""

    path: Path
    seed: bytes
    read: Callable[[], object]


def make_readers(guide, fit, folder):
    """Every reader of files that the library has."""
    guide.save(folder / "guide")
    fit.save(folder / "fit")
    store = SimulationStore(folder / "store")
    cohort = fit.cohort
    priors = Gaussians(torch.zeros(40, 2), torch.eye(2).expand(40, 2, 2))
    store.write(0, TrainingSet(cohort, torch.zeros(40, 2), torch.zeros(40, 1), priors, 0))
    files = {
        "table": (folder / "table.csv", lambda: nlme.read_table(folder / "table.csv")),
        "description": (
            folder / "guide" / "guide.json",
            lambda: pa.load_guide(folder / "guide", linear_program, cohort),
        ),
        "weights": (
            folder / "guide" / "weights.safetensors",
            lambda: pa.load_guide(folder / "guide", linear_program, cohort),
        ),
        "fit": (
            folder / "fit" / "fit.safetensors",
            lambda: pa.load_fit(folder / "fit", linear_program),
        ),
        "shard": (store.path(0), lambda: store.read(0)),
    }
    (folder / "table.csv").write_bytes((CORPUS / "plain.csv").read_bytes())
    return {name: Reader(path, path.read_bytes(), read) for name, (path, read) in files.items()}


def attempt(reader, content):
    """Read some content in the place of the file; the file is put back."""
    reader.path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read()
    except pa.AmortizedError as error:
        if not (error.found and error.expected and error.fix):
            raise RuntimeError(f"a part is empty: {error}") from error
    finally:
        reader.path.write_bytes(reader.seed)


def mutated(seed, number):
    """Some bytes changed, by a number."""
    draw = random.Random(number)
    content = bytearray(seed or b"0")
    head = min(len(content), 4000)  # where headers and descriptions are
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place = draw.randrange(head if draw.random() < 0.8 else len(content))
        kind = draw.randrange(6)
        if kind == 0:
            content[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            content[place] = draw.randrange(256)
        elif kind == 2:
            del content[place : place + draw.randrange(1, 40)]
        elif kind == 3:
            content[place:place] = content[place : place + draw.randrange(1, 40)]
        elif kind == 4:
            content[place:place] = draw.choice((b"99999999", b"-", b"null", b"[", b"{", b"1e999"))
        else:
            other = draw.randrange(head)
            content[place], content[other] = content[other], content[place]
        if not content:
            break
        head = min(len(content), head)
    return bytes(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cohort = linear_cohort()
    options = pa.TrainingOptions(max_epochs=2, batch_size=128)
    guide = pa.train(
        linear_program, cohort, num_simulations=4000, seed=1, options=options, progress=False
    )
    fit = pa.fit_population(
        linear_program, cohort, guide=guide, num_draws=100, num_starts=1, seed=1
    )
    tables = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    counts, failures, end = {}, 0, time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        readers, number = make_readers(guide, fit, Path(folder)), arguments.seed
        while time.monotonic() < end:
            for name, reader in readers.items():
                number += 1
                seed = tables[number % len(tables)] if name == "table" else reader.seed
                content = mutated(seed, number)
                counts[name] = counts.get(name, 0) + 1
                try:
                    attempt(reader, content)
                except Exception as error:
                    failures += 1
                    what = f"{type(error).__name__}: {str(error)[:200]}"
                    sys.stdout.write(f"{name} {number}: {what}\n")
                    if name == "table":
                        (CORPUS / f"found-{number}.csv").write_bytes(content)
    sys.stdout.write(f"tried {counts}; {failures} ended in another error than one of three parts\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
