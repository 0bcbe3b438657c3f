r"""The folder of a saved guide, written and read.

A guide is two files: ``weights.safetensors`` holds the weights of the networks, the training
distribution and the normal distribution of the population; ``guide.json`` describes the sites, the
networks and the training. Each file is replaced as one, and the description states the SHA-256 of
the weights that it belongs to. Nothing is pickled, and nothing is executed when a guide is read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Size, Tensor

from ...errors import AmortizedError, GuideError
from ...missing.training_patterns import TrainingPatterns
from ...model import ModelStructure
from ...numerics.gaussians import Gaussians
from ...runtime.atomic_files import make_folder, read_json, write_atomically
from ...runtime.file_formats import Content, Format
from ..individual_sites import check_individual_sites, coordinates_of
from ..training_distributions import (
    IndividualDistribution,
    PopulationRange,
    SharedDistribution,
    TrainingDistribution,
)
from ..training_history import TrainingHistory
from .file_checks import check_description, check_tensors, damaged
from .network_descriptions import (
    Posterior,
    describe_networks,
    networks_of,
    shapes_of,
    with_weights,
)

FORMAT = Format("train the guide again")
DESCRIPTION, WEIGHTS = "guide.json", "weights.safetensors"


@dataclass(frozen=True, eq=False)
class GuideParts:
    r"""All that a guide consists of, besides the model itself.

    Args:
        structure: The structure of the model.
        posterior: The networks.
        training_distribution: What they were trained on.
        history: How they were trained.
        patterns: Which patterns of missing values they were trained on.
        loc: Mean of the population parameters in unconstrained coordinates, shape
            ``(population,)``.
        scale_tril: Cholesky factor of their covariance, shape ``(population, population)``.
    """

    structure: ModelStructure
    posterior: Posterior
    training_distribution: TrainingDistribution
    history: TrainingHistory
    patterns: TrainingPatterns
    loc: Tensor
    scale_tril: Tensor


# Writing.


def write_guide(folder: Path, parts: GuideParts) -> None:
    """Write the two files of a guide. Each is replaced as one; the description states which
    weights it belongs to.
    """
    make_folder(folder)
    content = serialize({name: x.contiguous() for name, x in _tensors(parts).items()})
    description = FORMAT.stamped({**_description(parts), "weights": sha256(content).hexdigest()})
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())


def _description(parts: GuideParts) -> dict[str, Any]:
    structure, individual = parts.structure, parts.training_distribution.individual
    return {
        "individual": coordinates_of(structure.individual),
        "shared": {n: structure.population[n].num_unconstrained for n in structure.shared},
        "population": coordinates_of(structure.population),
        **describe_networks(parts.posterior),
        "trained_on_prior": individual.prior is not None,
        "scale_factor": None if individual.populations is None else individual.populations.factor,
        "history": asdict(parts.history),
        "patterns": parts.patterns.settings,
    }


def _tensors(parts: GuideParts) -> dict[str, Tensor]:
    individual = parts.training_distribution.individual.normal
    shared = parts.training_distribution.shared
    tensors = {f"posterior.{name}": x for name, x in parts.posterior.state_dict().items()}
    tensors |= {
        "training.loc": individual.loc,
        "training.scale_tril": individual.scale_tril,
        "training.shared": shared.draws,
        "population.loc": parts.loc,
        "population.scale_tril": parts.scale_tril,
    }
    populations = parts.training_distribution.individual.populations
    if populations is not None:
        tensors["training.populations_loc"] = populations.location.loc
        tensors["training.populations_scale_tril"] = populations.location.scale_tril
        tensors["training.populations_largest"] = populations.largest
    if shared.normal is not None:
        tensors["training.shared_loc"] = shared.normal.loc
        tensors["training.shared_scale_tril"] = shared.normal.scale_tril
    return tensors


# Reading.


def check_folder(path: Any) -> Path:
    r"""The folder of a guide.

    Raises:
        GuideError: It is no path, or the folder lacks one of the two files.
    """
    if not isinstance(path, str | Path):
        raise GuideError(
            f"The path is a {type(path).__name__}.",
            "the path of a folder, a text or a `Path`.",
            "pass what `guide.save` got.",
        )
    folder = Path(path)
    missing = [name for name in (DESCRIPTION, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise GuideError(
            f"{folder} holds no {' and no '.join(missing)}.",
            "a folder written by `guide.save(path)`.",
            "check the path.",
        )
    return folder


def read_guide(folder: Path) -> Content:
    r"""Description and tensors of a guide in the newest format, with the parts of the description
    of the right kind and its sizes within the limits.

    Raises:
        GuideError: A file is damaged, the two do not belong together, their format cannot be read,
            or a size is beyond the limits.
    """
    path = folder / DESCRIPTION
    try:
        description = read_json(path)
        # The format first: the weights of a newer format may be different.
        FORMAT.check(path, description)
        tensors = _read_weights(folder / WEIGHTS, description.get("weights"))
        content = FORMAT.newest(path, description, tensors)
    except AmortizedError as error:
        raise GuideError(error.found, error.expected, error.fix) from error
    check_description(path, content.description)
    return content


def _read_weights(path: Path, digest: Any) -> dict[str, Tensor]:
    """The tensors of a guide, from the file whose content has this SHA-256."""
    try:
        tensors = load_file(path)
        if digest != sha256(path.read_bytes()).hexdigest():
            raise ValueError("guide.json was written with other weights")
        return tensors
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise damaged(path, str(error)) from error


def parts_of(
    folder: Path, content: Content, structure: ModelStructure, classes: Sequence[type]
) -> GuideParts:
    r"""The parts of a guide from the content of its files.

    Args:
        folder: The folder, for messages.
        content: From :func:`read_guide`.
        structure: The structure of the model that the guide is used with.
        classes: Encodings and summary networks of the caller.

    Raises:
        GuideError: The guide is one of other sites, or the content does not fit together.
    """
    description, tensors = content
    _check_sites(structure, description)
    check_tensors(tensors, _shapes_besides_networks(structure, tensors))
    try:
        training = _training_distribution(structure, description, tensors)

        def build() -> Posterior:
            return networks_of(description, structure, training, classes)

        weights = {
            name.removeprefix("posterior."): x
            for name, x in tensors.items()
            if name.startswith("posterior.")
        }
        check_tensors(weights, shapes_of(build, classes), "posterior.", exact=True)
        return GuideParts(
            structure,
            with_weights(build, weights),
            training,
            TrainingHistory(**description["history"]),
            TrainingPatterns(**description["patterns"]),
            tensors["population.loc"],
            tensors["population.scale_tril"],
        )
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        if isinstance(error, AmortizedError):
            raise
        raise damaged(folder / DESCRIPTION, f"{type(error).__name__}: {error}") from error


def _check_sites(structure: ModelStructure, description: Mapping[str, Any]) -> None:
    check_individual_sites(structure, description["individual"])
    population = coordinates_of(structure.population)
    shared = {name: structure.population[name].num_unconstrained for name in structure.shared}
    if shared != description["shared"] or population != description["population"]:
        raise GuideError(
            f"The model has population sites {population} with shared {list(shared)}.",
            f"{description['population']} with shared {list(description['shared'])}, as in the "
            "saved guide.",
            "load the guide with the model it was trained for; fit other population models "
            "with it afterwards.",
        )


def _shapes_besides_networks(
    structure: ModelStructure, tensors: Mapping[str, Tensor]
) -> dict[str, Size]:
    """Shapes of the tensors that belong to no network, by name."""
    latent, shared = structure.num_latent, structure.num_shared
    population = structure.unconstrain_population(structure.initial_population()).numel()
    shapes = {
        "training.loc": (latent,),
        "training.scale_tril": (latent, latent),
        "training.shared": (len(tensors.get("training.shared", ())), shared),
        "population.loc": (population,),
        "population.scale_tril": (population, population),
    }
    if "training.populations_loc" in tensors:
        shapes["training.populations_loc"] = (latent,)
        shapes["training.populations_scale_tril"] = (latent, latent)
        shapes["training.populations_largest"] = (latent,)
    if "training.shared_loc" in tensors:
        shapes["training.shared_loc"] = (shared,)
        shapes["training.shared_scale_tril"] = (shared, shared)
    return {name: Size(shape) for name, shape in shapes.items()}


def _training_distribution(
    structure: ModelStructure, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> TrainingDistribution:
    normal = Gaussians(tensors["training.loc"], tensors["training.scale_tril"])
    normal_shared = None
    if "training.shared_loc" in tensors:
        normal_shared = Gaussians(
            tensors["training.shared_loc"], tensors["training.shared_scale_tril"]
        )
    populations = None
    if description["scale_factor"] is not None:
        names = ("loc", "scale_tril", "largest")
        loc, scale_tril, largest = (tensors[f"training.populations_{name}"] for name in names)
        location = Gaussians(loc, scale_tril)
        populations = PopulationRange(location, largest, float(description["scale_factor"]))
    prior = structure if description["trained_on_prior"] else None
    return TrainingDistribution(
        IndividualDistribution(normal, prior, populations),
        SharedDistribution(tensors["training.shared"], normal_shared),
    )
