r"""Guides from files, and guides beside other programs than their own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..cohort import Cohort
from ..errors import GuideError
from ..history import TrainingHistory
from ..patterns import TrainingPatterns
from ..posterior import AmortizedPosterior
from ..sharpened import SharpenedPosterior
from ..simulate import TrainingDistribution
from ..structure import Model, ModelStructure, check_recorded, read_structure
from .files import (
    FORMAT_VERSION,
    empty_posterior,
    posterior_tensors,
    sharpened_posterior,
    signature,
)
from .guide import AmortizedGuide


def load_guide(
    path: str | Path, model: Model, cohort: Cohort, *, classes: Sequence[type] = ()
) -> AmortizedGuide:
    r"""Load a guide that :meth:`AmortizedGuide.save` wrote.

    Args:
        path: The folder.
        model: The program that the guide was trained for.
        cohort: Data to read the program with.
        classes: Encodings and summary networks of your own that the guide was trained with.

    Raises:
        GuideError: The folder holds no guide, one of another format, or one for other individual
            parameters.
    """
    folder = Path(path)
    if not (folder / "guide.json").is_file() or not (folder / "weights.safetensors").is_file():
        raise GuideError(
            f"{folder} holds no guide.json with weights.safetensors.",
            "a folder written by `guide.save(path)`.",
            "check the path.",
        )
    description = json.loads((folder / "guide.json").read_text("utf-8"))
    if description.get("format_version") not in range(1, FORMAT_VERSION + 1):
        raise GuideError(
            f"The guide has format version {description.get('format_version')}.",
            f"version {FORMAT_VERSION} or older.",
            "use the version of the library that wrote it, or train it again.",
        )
    structure = read_structure(model, cohort)
    check_individual_sites(structure, description["individual"])
    found = {name: structure.population[name].num_unconstrained for name in structure.shared}
    if (
        found != description["shared"]
        or signature(structure.population) != description["population"]
    ):
        raise GuideError(
            f"The program has population sites {signature(structure.population)} with shared "
            f"{list(found)}.",
            f"{description['population']} with shared {list(description['shared'])}, as in the "
            "saved guide.",
            "load the guide with the program it was trained for; fit other population models "
            "with it afterwards.",
        )
    tensors = load_file(folder / "weights.safetensors")
    prior = structure if description.get("trained_on_prior") else None
    loc, scale_tril, shared = (tensors[f"training.{n}"] for n in ("loc", "scale_tril", "shared"))
    law = None
    if "training.shared_loc" in tensors:
        law = tensors["training.shared_loc"], tensors["training.shared_scale_tril"]
    distribution = TrainingDistribution(loc, scale_tril, shared, prior, law)
    first = empty_posterior(description, sum(found.values()), structure.num_latent, classes)
    posterior: AmortizedPosterior | SharpenedPosterior = first
    if "sharpened" in description:
        posterior = sharpened_posterior(description, first, structure, distribution)
    posterior.load_state_dict(posterior_tensors(tensors))
    history = TrainingHistory(**description["history"])
    patterns = TrainingPatterns(**description.get("patterns", {}))
    guide = AmortizedGuide(model, structure, posterior, distribution, history, patterns)
    return guide.at(tensors["population.loc"], tensors["population.scale_tril"])


def check_individual_sites(structure: ModelStructure, expected: Mapping[str, int]) -> None:
    r"""Raise unless a program has the individual sites that a guide was trained for.

    Raises:
        GuideError: Names, sizes or order of the individual sites differ.
    """
    found = signature(structure.individual)
    if list(found.items()) != list(expected.items()):
        raise GuideError(
            f"The program has the individual sites {found} (name: unconstrained size).",
            f"{dict(expected)}, in this order, as in the guide's own program.",
            "keep the individual sites as they are and change only the population model, or "
            "train a new guide.",
        )


def structure_for(guide: AmortizedGuide, model: Model, cohort: Cohort) -> ModelStructure:
    r"""The structure of a program that is to be used with a guide, which may have been trained for
    another.

    Raises:
        GuideError: Its individual sites differ from the guide's in name, size, order or support.
    """
    if model is guide.model:
        check_recorded(guide.structure, cohort)
        return guide.structure
    structure = read_structure(model, cohort)
    check_individual_sites(structure, signature(guide.structure.individual))
    middle = guide.training_distribution.loc.expand(len(cohort), -1)
    double = cohort.to(dtype=torch.float64)
    mine, _ = structure.constrain(double, middle, structure.initial_population())
    theirs, _ = guide.structure.constrain(double, middle, guide.structure.initial_population())
    for name, value in mine.items():
        if value.shape != theirs[name].shape or not torch.allclose(value, theirs[name], rtol=1e-6):
            raise GuideError(
                f"The individual site {name!r} has another shape or support than in the guide's "
                "own program.",
                "individual parameters on the same scale.",
                "keep the distribution's support (for instance Normal on the log scale), or "
                "train a new guide.",
            )
    return structure
