r"""The files of a fit: data, draws and estimates in one safetensors file, the guide in a folder
beside it. Nothing is pickled.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cohort import Cohort, Labels, are_numbers
from ..cohort.named_tensors import cohort_of, cohort_tensors
from ..errors import AmortizedError, FitError
from ..runtime.atomic_files import make_folder, read_tensors, write_tensors
from ..runtime.file_formats import Content, Format
from ..sampling.individuals import IndividualPosteriors
from ..sampling.proposals import Refinement
from ..sampling.student_mixture import StudentMixture

FORMAT = Format("fit again")
FILE, GUIDE = "fit.safetensors", "guide"
DRAWS = ("unconstrained", "log_proposal", "log_weights")
MIXTURES = ("mixture", "guide")
DESCRIBED = (
    *("criterion", "estimator", "population", "converged", "message", "num_rounds", "fixed"),
    *("ids", "numbered", "method"),
)


class Contents(NamedTuple):
    """What the file of a fit holds."""

    cohort: Cohort
    tensors: dict[str, Tensor]
    refinement: Refinement
    description: dict[str, Any]


def write_fit(
    folder: Path,
    individuals: IndividualPosteriors,
    estimates: Mapping[str, Tensor],
    description: Mapping[str, Any],
) -> None:
    r"""Write the file of a fit, whole or not at all.

    Args:
        folder: The folder; made if it is not there.
        individuals: The draws, and the data they belong to.
        estimates: Tensors of the estimates by name.
        description: Everything else, as JSON.
    """
    make_folder(folder)
    cohort, refinement = individuals.cohort, individuals.refinement
    tensors = {f"cohort.{name}": x for name, x in cohort_tensors(cohort).items()}
    tensors |= {f"estimates.{name}": x for name, x in estimates.items()}
    tensors |= {f"draws.{name}": getattr(individuals, name) for name in DRAWS}
    tensors["refinement.refined"] = refinement.refined
    for kind in MIXTURES:
        mixture: StudentMixture = getattr(refinement, kind)
        tensors |= {f"refinement.{kind}.{f.name}": vars(mixture)[f.name] for f in fields(mixture)}
    whole = {
        **description,
        "ids": list(cohort.ids),
        "numbered": are_numbers(cohort.ids),
        "method": list(individuals.method),
    }
    write_tensors(folder / FILE, tensors, FORMAT.stamped(whole))


def read_fit(folder: Path) -> Contents:
    r"""Read what :func:`write_fit` wrote.

    Raises:
        FitError: There is no such file, it is damaged, or its format cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise FitError(
            f"{folder} holds no {FILE}.", "a folder written by `fit.save(path)`.", "check the path."
        )
    description, tensors = _content(path)
    try:
        missing = [name for name in DESCRIBED if name not in description]
        if missing:
            raise ValueError(f"{missing} are missing")
        labels = Labels.of(map(str, description["ids"]), bool(description["numbered"]))
        cohort = cohort_of(_under(tensors, "cohort."), labels)
        mixtures = [StudentMixture(**_under(tensors, f"refinement.{kind}.")) for kind in MIXTURES]
        refinement = Refinement(tensors["refinement.refined"], *mixtures)
        needed = [f"draws.{name}" for name in DRAWS] + ["estimates.vector", "estimates.covariance"]
        found = {name: tensors[name] for name in [*needed, "estimates.scale"]}
        _check_shapes(cohort, found, refinement, description)
        return Contents(cohort, found, refinement, description)
    except (AmortizedError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def _content(path: Path) -> Content:
    """Description and tensors as the newest format has them."""
    try:
        tensors, description = read_tensors(path)
    except AmortizedError as error:
        raise _damaged(path, error) from error
    try:
        return FORMAT.newest(path, description, tensors)
    except AmortizedError as error:
        raise FitError(error.found, error.expected, error.fix) from error


def _damaged(path: Path, error: Exception) -> FitError:
    reason = error.found if isinstance(error, AmortizedError) else repr(error)
    return FitError(
        f"{path} cannot be used: {reason}",
        "a whole file that `fit.save(path)` wrote.",
        "copy the folder again, or fit again.",
    )


def _under(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): x for n, x in tensors.items() if n.startswith(start)}


def _check_shapes(
    cohort: Cohort,
    found: Mapping[str, Tensor],
    refinement: Refinement,
    description: Mapping[str, Any],
) -> None:
    draws, num = found["draws.unconstrained"], len(cohort)
    places = len(found["estimates.vector"])
    same = draws.dim() == 3 and draws.shape[1] == num
    same &= all(found[f"draws.{name}"].shape == draws.shape[:2] for name in DRAWS[1:])
    same &= found["estimates.covariance"].shape == (places, places)
    same &= found["estimates.scale"].shape == (places,)
    same &= refinement.refined.shape == (num,) and len(description["method"]) == num
    same &= bool(found["estimates.vector"].isfinite().all() & draws.isfinite().all())
    same &= not bool(torch.isnan(found["draws.log_weights"]).any())
    if not same:
        raise ValueError("its tensors do not fit each other")
