r"""The folder of a run: its settings, simulations and checkpoint.

A run that was interrupted is taken up by calling :func:`~pyro_amortized.train` again with the same
arguments; anything that would make another run of it is refused.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..runtime.atomic_files import make_folder, read_json, write_atomically
from ..runtime.file_formats import Format
from .options import Networks, TrainingOptions
from .simulation.shard_simulation import Simulator, shard_generator

PROBE = 10**9
NUM_PROBED, NUM_MEANS = 32, 4
FORMAT = Format("pass another folder")
FREE = ("num_workers", "num_threads", "device", "autocast", "checkpoint_seconds")


def settings(
    simulator: Simulator, options: TrainingOptions, networks: Networks, **more: Any
) -> dict[str, Any]:
    """What makes a run this run: everything that moves the weights, as JSON."""
    structure, training = simulator.structure, simulator.distribution.individual
    kept = {name: x for name, x in asdict(options).items() if name not in FREE}
    return {
        "seed": simulator.seed,
        **more,
        "options": kept,
        "networks": networks.description,
        "individual": list(structure.individual),
        "shared": list(structure.shared),
        "training_distribution": [
            training.normal.loc.tolist(),
            training.normal.scale_tril.tolist(),
        ],
        "trained_on_prior": training.prior is not None,
        "probe": _probe(simulator),
    }


def _probe(simulator: Simulator) -> dict[str, list[list[float]]]:
    """What tells one program and design from another: a few simulations, as means of the values and
    of what is recorded, by series. The weights tell values in one place from those in another. No
    hash, because another machine may go on, whose last digits differ.
    """
    generator = shard_generator(simulator.seed, PROBE)
    cohort = simulator.design.missing(simulator(PROBE, NUM_PROBED).cohort, generator)
    found = {}
    for name, series in cohort.series.items():
        shape = (NUM_MEANS, *series.values.shape)
        weights = torch.rand(shape, generator=generator, dtype=torch.float64).flatten(1)
        parts = (series.values, series.observed)
        found[name] = [(weights @ x.double().flatten() / weights.shape[1]).tolist() for x in parts]
    return found


def claim(folder: Path, wanted: dict[str, Any]) -> None:
    r"""Make the folder of a run, or check that it is the folder of this run.

    Raises:
        AmortizedError: The settings there cannot be read.
        TrainingError: The folder holds another run.
    """
    make_folder(folder)
    path = folder / "run.json"
    if not path.is_file():
        write_atomically(path, (json.dumps(FORMAT.stamped(wanted), indent=2) + "\n").encode())
        return
    found = FORMAT.newest(path, read_json(path), {}).description
    different = [name for name in wanted if not _same(found.get(name), wanted[name])]
    if different:
        shown = ", ".join(
            f"{n} = {_short(found.get(n))} (now {_short(wanted[n])})" for n in different
        )
        raise TrainingError(
            f"{folder} holds another run: {shown}.",
            "the arguments, the program and the data that the run was begun with.",
            "go on with these, or pass another folder.",
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        pair = torch.tensor([one, other], dtype=torch.float64)
        return bool(torch.isclose(pair[0], pair[1], rtol=1e-5, atol=1e-10, equal_nan=True))
    return bool(one == other)


def _short(x: Any) -> str:
    text = str(x)
    return text if len(text) <= 80 else text[:77] + "..."
