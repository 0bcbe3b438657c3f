r"""The folder of a training run: its settings and its checkpoint, written and read.

``run.json`` states what determines the weights, so that a run continues only with the arguments
it was begun with: :func:`claim_folder` writes the settings or compares them.

``checkpoint.safetensors`` holds the state of the training: weights, their average, the best
weights so far, the state of the optimizers, and in its header the place in the training and the
losses. It is replaced as one file. An interrupted run continues from it and ends with the weights
of an uninterrupted one.

The simulations of the run are in the folder ``simulations``, see
:mod:`pyro_amortized.training.simulation.shard_store`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TrainingError
from ..guide.training_distributions import PopulationRange
from ..runtime.atomic_files import (
    read_tensors,
    write_tensors,
)
from ..runtime.claimed_folders import changed_settings
from ..runtime.file_formats import Format
from .network_options import Networks
from .options import TrainingOptions
from .simulation.random_streams import Purpose, random_stream
from .simulation.shard_simulation import Simulator

CHECKPOINT_FORMAT = Format("pass another folder")
# Options that do not change the weights, so that a run may continue on another machine.
FREE_OPTIONS = ("num_workers", "num_threads", "device", "autocast", "checkpoint_seconds")


@dataclass(frozen=True)
class ProbeSettings:
    r"""The few simulations by which the model and the design of a run are recognised.

    Args:
        shard: Number of the shard that is simulated; larger than that of any shard that is
            trained on.
        num_simulations: Number of simulations; they cost little even where one takes a second.
        num_means: Number of weighted means per series.
    """

    shard: int = 10**9
    num_simulations: int = 32
    num_means: int = 4


PROBE = ProbeSettings()


# Settings.


def run_settings(
    simulator: Simulator, options: TrainingOptions, networks: Networks, **more: Any
) -> dict[str, Any]:
    r"""Everything that determines the weights of a run, as JSON.

    Args:
        simulator: Makes the simulations of the run.
        options: How it is trained.
        networks: Sizes of the networks.
        **more: Further settings, by name.
    """
    structure, training = simulator.structure, simulator.distribution.individual
    return {
        "seed": simulator.seed,
        **more,
        "options": {name: x for name, x in asdict(options).items() if name not in FREE_OPTIONS},
        "networks": networks.description,
        "individual": list(structure.individual),
        "shared": list(structure.shared),
        "training_distribution": [
            training.normal.loc.tolist(),
            training.normal.scale_tril.tolist(),
        ],
        "trained_on_prior": training.prior is not None,
        "populations": _described(training.populations),
        "probe": _probe(simulator),
    }


def _described(populations: PopulationRange | None) -> list[Any] | None:
    """The populations of a training as JSON."""
    if populations is None:
        return None
    location = populations.location
    tensors = (location.loc, location.scale_tril, populations.largest)
    return [*(x.tolist() for x in tensors), populations.factor]


def _probe(simulator: Simulator) -> dict[str, list[list[float]]]:
    """Weighted means of the values and of what is recorded in a few simulations, by series.

    They differ between models and between designs. The weights are random, so that values in
    exchanged places give other means. A hash would not do, because the last digits may differ on
    the machine that continues.
    """
    generator = random_stream(simulator.seed, Purpose.PROBE)
    simulations = simulator(PROBE.shard, PROBE.num_simulations)
    cohort = simulator.design.missing(simulations.cohort, generator)
    means = {}
    for name, series in cohort.series.items():
        shape = (PROBE.num_means, *series.values.shape)
        weights = torch.rand(shape, generator=generator, dtype=torch.float64).flatten(1)
        parts = (series.values, series.observed)
        means[name] = [(weights @ x.double().flatten() / weights.shape[1]).tolist() for x in parts]
    return means


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    r"""Make the folder of a run, or check that it is the folder of this run.

    Args:
        folder: The folder.
        settings: From :func:`run_settings`.

    Raises:
        AmortizedError: The settings in the folder cannot be read.
        TrainingError: The folder holds another run.
    """
    shown = changed_settings(folder, "run.json", settings)
    if shown:
        raise TrainingError(
            f"{folder} holds another run: {shown}.",
            "the arguments, the model and the data that the run was begun with.",
            "continue with these, or pass another folder.",
        )


# Checkpoint.


def write_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module | dict[str, Tensor]],
    optimizers: Mapping[str, Optimizer],
    progress: Mapping[str, Any],
) -> None:
    r"""Write a checkpoint; the file is replaced as one.

    Args:
        path: The file.
        modules: Networks, or weights by name, each under a name of its own.
        optimizers: Optimizers, likewise.
        progress: The place in the training and the losses, which JSON can hold.
    """
    tensors: dict[str, Tensor] = {}
    for owner, module in modules.items():
        weights = module.state_dict() if isinstance(module, nn.Module) else module
        tensors |= {f"{owner}/{name}": x.clone() for name, x in weights.items()}
    for owner, optimizer in optimizers.items():
        state = _optimizer_tensors(optimizer)
        tensors |= {f"{owner}/{name}": x.clone() for name, x in state.items()}
    write_tensors(path, tensors, CHECKPOINT_FORMAT.stamped({"progress": progress}))


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    r"""The tensors of each module and optimizer, by the names they were written with; and the
    progress.

    Raises:
        AmortizedError: The file is damaged, or its format cannot be read.
    """
    tensors, description = read_tensors(path)
    description, tensors = CHECKPOINT_FORMAT.newest(path, description, tensors)
    owners: dict[str, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        owner, name = key.split("/", 1)
        owners.setdefault(owner, {})[name] = x
    progress: dict[str, Any] = description["progress"]
    return owners, progress


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """State of an optimizer as tensors, by ``number of the weight.name``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{j}.{name}": torch.as_tensor(x) for j, entry in state.items() for name, x in entry.items()
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the state that a checkpoint holds."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = x
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
