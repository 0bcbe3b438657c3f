r"""Files that are either complete or absent, and tensors with a description in the same file.

A file is written under a temporary name, flushed to the disk and then renamed. A process that is
killed at any moment therefore leaves the old file or the new one. Tensors are written as
safetensors (memory-mapped when read, nothing is pickled) with a JSON description in the header.
"""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import AmortizedError

KEY = "pyro_amortized"
MAX_JSON = 100 * 2**20  # bytes; our largest description has some kilobytes


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either complete or absent."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    r"""Make a folder if there is none.

    Raises:
        AmortizedError: There is a file of that name, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AmortizedError(
            f"The folder {folder} cannot be made: {error.strerror}.",
            "a folder, or a place where one can be made.",
            "pass another path.",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    r"""Read a file that holds one JSON object.

    Raises:
        AmortizedError: The file cannot be read or holds something else.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes, at most {MAX_JSON} are read")
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise AmortizedError(
            f"{path} cannot be read: {error}.",
            "a complete file that this library wrote.",
            "check the path; if a run was interrupted, delete the file and start again.",
        ) from error
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Any) -> None:
    """Write tensors, and a description that JSON can hold, into one file."""
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, x in tensors.items():
        y = x.detach().cpu().contiguous()
        # The format refuses two tensors of one storage (the times of a series and of its limits).
        own[name] = y.clone() if y.untyped_storage().data_ptr() in storages else y
        storages.add(y.untyped_storage().data_ptr())
    write_atomically(path, save(own, {KEY: json.dumps(description)}))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    r"""SHA-256 of the names, types, shapes and bytes of tensors; their order does not matter.

    Args:
        tensors: By name, for instance the state of a network.

    Example:
        >>> ones, zeros = torch.ones(2), torch.zeros(2)
        >>> known = fingerprint({"a": ones, "b": zeros})
        >>> known == fingerprint({"b": zeros, "a": ones})
        True
        >>> known == fingerprint({"a": zeros, "b": ones})
        False
    """
    digest = sha256()
    for name, x in sorted(tensors.items()):
        flat = x.detach().cpu().contiguous().reshape(-1)
        digest.update(json.dumps([name, str(x.dtype), list(x.shape)]).encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    r"""Read what :func:`write_tensors` wrote.

    Raises:
        AmortizedError: The file is damaged or was not written by this library.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[KEY])
            # Copies: what is computed from a tensor depends, in its last digits, on where in the
            # memory it begins, and the tensors of the file begin anywhere.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, description
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise AmortizedError(
            f"{path} cannot be read: {error}.",
            "a complete file that this library wrote.",
            "delete it; its content is then made again.",
        ) from error
