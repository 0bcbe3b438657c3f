r"""Folders in which a long computation keeps its state, recognised by what determines its result.

A file of settings is written at the beginning. A later call with the same settings goes on, and
another one is refused. Numbers that come from computations may differ in the last digits, because
another machine may go on; a hash of them would not do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .arguments import shortened
from .atomic_files import make_folder, read_json, write_atomically
from .file_formats import Format


@dataclass(frozen=True)
class AgreementSettings:
    r"""When two numbers count as the same.

    Args:
        rtol: Relative difference up to which they do. Solvers and matrix products of two machines
            differ in the last digits.
        atol: Absolute difference up to which they do.
    """

    rtol: float = 1e-5
    atol: float = 1e-10


AGREEMENT = AgreementSettings()
SETTINGS_FORMAT = Format("pass another folder")


def changed_settings(folder: Path, name: str, settings: Mapping[str, Any]) -> str:
    r"""Write the settings of a computation into its folder, or compare them with those there.

    Args:
        folder: The folder; it is made if there is none.
        name: Name of the file of settings.
        settings: What determines the result, as JSON can hold it.

    Returns:
        What is different from the settings that are there, in words; empty if nothing is, or if
        there were none.

    Raises:
        AmortizedError: The settings in the folder cannot be read.
    """
    make_folder(folder)
    path = folder / name
    if not path.is_file():
        content = json.dumps(SETTINGS_FORMAT.stamped(settings), indent=2) + "\n"
        write_atomically(path, content.encode())
        return ""
    present = SETTINGS_FORMAT.newest(path, read_json(path), {}).description
    different = [key for key in settings if not _is_same(present.get(key), settings[key])]
    return ", ".join(
        f"{n} = {shortened(str(present.get(n)))} (now {shortened(str(settings[n]))})"
        for n in different
    )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, numbers up to the tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_is_same(a, b) for a, b in pairs)
    if isinstance(one, float) and isinstance(other, float):
        a, b = torch.tensor([one, other], dtype=torch.float64)
        tolerances = (AGREEMENT.rtol, AGREEMENT.atol)
        return bool(torch.isclose(a, b, *tolerances, equal_nan=True))
    return bool(one == other)
