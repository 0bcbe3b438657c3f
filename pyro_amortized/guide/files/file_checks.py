r"""Checks of the content of a guide's files, before any network is made from it.

A guide may come from anyone. Sizes in its description are bounded, and its tensors are compared
with the shapes that follow from the description before memory is taken for networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Size, Tensor

from ...errors import GuideError
from ...runtime.arguments import shortened
from ..training_history import TrainingHistory

PARTS = (
    *("individual", "shared", "population", "encoder", "summary", "flow"),
    *("history", "patterns"),
)
NETWORKS = ("encoder", "summary", "flow", "shared_flow", "sharpened")
WORDS_FOR_COUNTS = ("layers", "depth", "blocks", "steps")


@dataclass(frozen=True)
class FileLimits:
    r"""Largest sizes that are read from the description of a guide.

    Both are far above those of the default networks (width 128, two spline layers), and small
    enough that a file cannot ask for more layers or lists than the memory holds.

    Args:
        size: Largest width of a layer or length of a list.
        count: Largest number of layers, blocks or steps.
    """

    size: int = 16_384
    count: int = 256


LIMITS = FileLimits()


def damaged(path: Path, why: str) -> GuideError:
    """The error of a file whose content cannot be used."""
    return GuideError(
        f"{path} cannot be used: {why}",
        "a complete file that `guide.save(path)` wrote.",
        "copy the folder again, or train the guide again.",
    )


def check_description(path: Path, description: Mapping[str, Any]) -> None:
    r"""Raise unless all parts of a description are there and its sizes are within the limits.

    Args:
        path: The file, for messages.
        description: Its content.

    Raises:
        GuideError: A part is missing or of another kind, or a size is beyond the limits.
    """
    for name in PARTS:
        if not isinstance(description.get(name), dict):
            raise damaged(path, f"{name!r} is {shortened(repr(description.get(name)))}")
    wrong = set(description["history"]) ^ {f.name for f in fields(TrainingHistory)}
    if wrong:
        raise damaged(path, f"{sorted(wrong)} of the history are missing or unknown")
    for name in NETWORKS:
        _check_sizes(path, name, name, description.get(name))


def _check_sizes(path: Path, place: str, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, x in value.items():
            _check_sizes(path, f"{place}.{key}", key, x)
    elif isinstance(value, list):
        if len(value) > LIMITS.size:
            raise damaged(path, f"{place} has {len(value)} entries")
        for x in value:
            _check_sizes(path, place, name, x)
    elif isinstance(value, int) and not isinstance(value, bool):
        most = LIMITS.count if any(word in name for word in WORDS_FOR_COUNTS) else LIMITS.size
        if not -1 <= value <= most:
            raise damaged(path, f"{place} is {value}, {most} at most are read")
    elif isinstance(value, str) and place.split(".")[0].endswith("flow"):
        raise damaged(path, f"{place} is {value!r}, no number")


def check_tensors(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Size],
    prefix: str = "",
    exact: bool = False,
) -> None:
    r"""Raise unless the tensors have these shapes and hold finite numbers.

    Args:
        tensors: By name.
        shapes: By name.
        prefix: What the names in the file begin with, for messages.
        exact: Whether there may be no others.

    Raises:
        GuideError: One is missing, superfluous, of another shape, no floating tensor or not finite.
    """
    extra = set(tensors) - set(shapes) if exact else set()
    for name in [*shapes, *sorted(extra)]:
        where = f"The tensor {prefix}{name} of weights.safetensors"
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
