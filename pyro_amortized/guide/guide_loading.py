r"""Guides from files, and guides beside other programs than their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import AmortizedError, GuideError
from ..missing.training_patterns import TrainingPatterns
from ..model import Model, ModelStructure, check_recorded, read_structure
from ..runtime.arguments import check_is, check_program
from ..runtime.isolation import seeded
from .amortized_posterior import AmortizedPosterior
from .file_validation import check_folder, check_tensors, damaged, read_guide, training_shapes
from .guide_format import empty_posterior, posterior_tensors, sharpened_posterior, signature
from .newton_posterior import SharpenedPosterior
from .pyro_guide import AmortizedGuide
from .training_distributions import (
    IndividualDistribution,
    NormalDistribution,
    SharedDistribution,
    TrainingDistribution,
)
from .training_history import TrainingHistory


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
        GuideError: The folder holds no guide, one whose format cannot be read, or one for other
            individual parameters.
    """
    folder = check_folder(path)
    description, tensors = read_guide(folder)
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
    check_tensors(tensors, training_shapes(structure, tensors))
    try:
        return _restored(model, structure, description, tensors, classes)
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        if isinstance(error, AmortizedError):
            raise
        raise damaged(folder / "guide.json", f"{type(error).__name__}: {error}") from error


def _restored(
    model: Model,
    structure: ModelStructure,
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    classes: Sequence[type],
) -> AmortizedGuide:
    """The guide of a description and its tensors. Sizes are compared before anything is made."""
    prior = structure if description["trained_on_prior"] else None
    normal = NormalDistribution(tensors["training.loc"], tensors["training.scale_tril"])
    normal_shared = None
    if "training.shared_loc" in tensors:
        normal_shared = NormalDistribution(
            tensors["training.shared_loc"], tensors["training.shared_scale_tril"]
        )
    distribution = TrainingDistribution(
        IndividualDistribution(normal, prior),
        SharedDistribution(tensors["training.shared"], normal_shared),
    )
    history = TrainingHistory(**description["history"])
    patterns = TrainingPatterns(**description["patterns"])

    def build() -> AmortizedPosterior | SharpenedPosterior:
        num_shared, num_latent = structure.num_shared, structure.num_latent
        first = empty_posterior(description, num_shared, num_latent, classes)
        if "sharpened" in description:
            return sharpened_posterior(description, first, structure, distribution)
        return first

    with seeded(0), torch.device("cpu" if classes else "meta"):  # one's own classes are trusted
        shapes = {name: x.shape for name, x in build().state_dict().items()}
    mine = posterior_tensors(tensors)
    check_tensors(mine, shapes, "posterior.", exact=True)
    with seeded(0):
        posterior = build()
    posterior.load_state_dict(mine)
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
    fix = "load it first, `load_guide(path, model, cohort)`."
    check_is("guide", guide, AmortizedGuide, fix, GuideError)
    check_program(model, GuideError)
    check_is("cohort", cohort, Cohort, "pass a Cohort, as `read_table` gives.", GuideError)
    if model is guide.model:
        check_recorded(guide.structure, cohort)
        return guide.structure
    structure = read_structure(model, cohort)
    check_individual_sites(structure, signature(guide.structure.individual))
    middle = guide.training_distribution.individual.normal.loc.expand(len(cohort), -1)
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
