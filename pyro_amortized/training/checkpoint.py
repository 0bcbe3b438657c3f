r"""Checkpoints: everything a training needs to go on as if nothing had happened.

One safetensors file, replaced whole: weights, their average, the best so far, the optimisers'
state, and in the header the place in the training and the record of the losses.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.atomic_files import read_tensors, write_tensors
from ..runtime.file_formats import Format

FORMAT = Format("pass another folder")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as tensors, by ``number of the weight.name``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{j}.{name}": torch.as_tensor(x) for j, entry in state.items() for name, x in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = x
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def write_checkpoint(
    path: Path,
    modules: dict[str, nn.Module | dict[str, Tensor]],
    optimizers: dict[str, torch.optim.Optimizer],
    progress: dict[str, Any],
) -> None:
    """Write a checkpoint, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for owner, module in modules.items():
        found = module.state_dict() if isinstance(module, nn.Module) else module
        tensors |= {f"{owner}/{name}": x.clone() for name, x in found.items()}
    for owner, optimizer in optimizers.items():
        tensors |= {f"{owner}/{n}": x.clone() for n, x in optimizer_tensors(optimizer).items()}
    write_tensors(path, tensors, FORMAT.stamped({"progress": progress}))


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    r"""Tensors by owner, and the progress.

    Raises:
        AmortizedError: The file is damaged, or its format cannot be read.
    """
    tensors, description = read_tensors(path)
    description, tensors = FORMAT.newest(path, description, tensors)
    owners: dict[str, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        owner, name = key.split("/", 1)
        owners.setdefault(owner, {})[name] = x
    progress: dict[str, Any] = description["progress"]
    return owners, progress
