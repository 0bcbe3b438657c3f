r"""Guides from strangers: what a file says is checked before anything is made of it.

Nothing is executed: weights are safetensors, the description is JSON whose classes are looked up
among those of the library (or those that the caller passes), whose sizes are bounded, and compared
with the tensors of the file before memory is taken.
"""

from collections.abc import Mapping
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import AmortizedError, GuideError
from ..model import ModelStructure
from ..runtime.atomic_files import read_json
from ..runtime.file_formats import Content
from .guide_format import FORMAT
from .training_history import TrainingHistory

NEEDED = (
    *("individual", "shared", "population", "encoder", "summary", "flow"),
    *("history", "patterns"),
)
NETWORKS = ("encoder", "summary", "flow", "shared_flow", "sharpened")
MAX_SIZE, MAX_LAYERS = 16_384, 256
COUNTED = ("layers", "depth", "blocks", "steps")


def check_folder(path: Any) -> Path:
    r"""The folder of a guide.

    Raises:
        GuideError: It is none.
    """
    if not isinstance(path, str | Path):
        raise GuideError(
            f"The path is a {type(path).__name__}.", "the path of a folder.", "pass a text."
        )
    folder = Path(path)
    missing = [n for n in ("guide.json", "weights.safetensors") if not (folder / n).is_file()]
    if missing:
        raise GuideError(
            f"{folder} holds no {' and no '.join(missing)}.",
            "a folder written by `guide.save(path)`.",
            "check the path.",
        )
    return folder


def damaged(path: Path, why: str) -> GuideError:
    """The error of a file that is not what it should be."""
    return GuideError(
        f"{path} cannot be used: {why}",
        "a whole file that `guide.save(path)` wrote.",
        "copy the folder again, or train the guide again.",
    )


def read_guide(folder: Path) -> Content:
    r"""Description and tensors of a guide as the newest format has them, the parts of the
    description of the right kind and its sizes within bounds.

    Raises:
        GuideError: A file is damaged, the two do not belong together, their format cannot be read,
            or they ask for networks out of all proportion.
    """
    path = folder / "guide.json"
    try:
        description = read_json(path)
        FORMAT.check(path, description)  # first: the weights of a newer format may be others
        tensors = _read_weights(folder / "weights.safetensors", description.get("weights"))
        content = FORMAT.newest(path, description, tensors)
    except AmortizedError as error:
        raise GuideError(error.found, error.expected, error.fix) from error
    _check_description(path, content.description)
    return content


def _check_description(path: Path, description: Mapping[str, Any]) -> None:
    for name in NEEDED:
        if not isinstance(description.get(name), dict):
            raise damaged(path, f"{name!r} is {_short(description.get(name))}")
    odd = set(description["history"]) ^ {f.name for f in fields(TrainingHistory)}
    if odd:
        raise damaged(path, f"{sorted(odd)} of the history are missing or unknown")
    for name in NETWORKS:
        _check_sizes(path, name, name, description.get(name))


def _check_sizes(path: Path, place: str, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, x in value.items():
            _check_sizes(path, f"{place}.{key}", key, x)
    elif isinstance(value, list):
        if len(value) > MAX_SIZE:
            raise damaged(path, f"{place} has {len(value)} entries")
        for x in value:
            _check_sizes(path, place, name, x)
    elif isinstance(value, int) and not isinstance(value, bool):
        most = MAX_LAYERS if any(word in name for word in COUNTED) else MAX_SIZE
        if not -1 <= value <= most:
            raise damaged(path, f"{place} is {value}, {most} at most are read")
    elif isinstance(value, str) and place.split(".")[0].endswith("flow"):
        raise damaged(path, f"{place} is {value!r}, no number")


def _read_weights(path: Path, digest: Any) -> dict[str, Tensor]:
    """The tensors of a guide, from the file whose content has this SHA-256."""
    try:
        tensors = load_file(path)
        if digest != sha256(path.read_bytes()).hexdigest():
            raise ValueError("guide.json was written with other weights")
        return tensors
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise damaged(path, str(error)) from error


def training_shapes(
    structure: ModelStructure, tensors: Mapping[str, Tensor]
) -> dict[str, torch.Size]:
    """Shapes of the tensors beside the networks."""
    latent, shared = structure.num_latent, structure.num_shared
    places = structure.unconstrain_population(structure.initial_population()).numel()
    found = {
        "training.loc": (latent,),
        "training.scale_tril": (latent, latent),
        "training.shared": (len(tensors.get("training.shared", ())), shared),
        "population.loc": (places,),
        "population.scale_tril": (places, places),
    }
    if "training.shared_loc" in tensors:
        found |= {"training.shared_loc": (shared,)}
        found |= {"training.shared_scale_tril": (shared, shared)}
    return {name: torch.Size(shape) for name, shape in found.items()}


def check_tensors(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    start: str = "",
    exact: bool = False,
) -> None:
    r"""Raise unless the tensors have these shapes and hold numbers.

    Args:
        tensors: By name.
        shapes: By name.
        start: What stands before their names in the file.
        exact: Whether there may be no others.

    Raises:
        GuideError: One is missing, superfluous, of another shape, no floating tensor or not finite.
    """
    extra = set(tensors) - set(shapes) if exact else set()
    for name in [*shapes, *sorted(extra)]:
        where = f"The tensor {start}{name} of weights.safetensors"
        if name not in tensors or name in extra:
            raise _wrong(f"{where} {'is not expected' if name in extra else 'is missing'}.")
        x = tensors[name]
        if x.shape != shapes[name]:
            raise _wrong(f"{where} has shape {tuple(x.shape)}, not {tuple(shapes[name])}.")
        if not x.is_floating_point():
            raise _wrong(f"{where} is of {str(x.dtype).removeprefix('torch.')}.")
        if not bool(x.isfinite().all()):
            raise _wrong(f"{where} is not finite.")


def _wrong(found: str) -> GuideError:
    return GuideError(
        found,
        "the tensors that guide.json describes, of finite numbers.",
        "copy the folder again, or train the guide again.",
    )


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 80 else text[:77] + "..."
