r"""Models other than the one that a guide was trained for.

A guide can be used with any model that has its individual sites: their names, sizes, order and
supports. The population model and the residual error may differ.
"""

import torch

from ..cohort import Cohort
from ..errors import AmortizedError, GuideError
from ..model import Model, ModelStructure, check_recorded, read_structure
from ..runtime.arguments import check_is, check_program
from .individual_sites import check_individual_sites, coordinates_of
from .pyro_guide import AmortizedGuide

# Relative difference up to which two values of a parameter are the same: far above the rounding of
# a transformation, far below the difference between two supports.
ROUNDING = 1e-6


def check_guide(guide: AmortizedGuide, error: type[AmortizedError] = GuideError) -> None:
    """Raise an error of a class unless an argument is a guide; the path of one is not."""
    fix = "load it first, `load_guide(path, model, cohort)`."
    check_is("guide", guide, AmortizedGuide, fix, error)


def structure_for(guide: AmortizedGuide, model: Model, cohort: Cohort) -> ModelStructure:
    r"""The structure of a model that is to be used with a guide.

    Args:
        guide: The guide.
        model: The model that it was trained for, or another one.
        cohort: Data to read the model with.

    Raises:
        GuideError: The individual sites of the model differ from the guide's in name, size, order
            or support.
    """
    check_guide(guide)
    check_program(model, GuideError)
    check_is("cohort", cohort, Cohort, "pass a Cohort, as `read_table` gives.", GuideError)
    if model is guide.model:
        check_recorded(guide.structure, cohort)
        return guide.structure
    structure = read_structure(model, cohort)
    check_individual_sites(structure, coordinates_of(guide.structure.individual))
    _check_supports(guide, structure, cohort)
    return structure


def _check_supports(guide: AmortizedGuide, structure: ModelStructure, cohort: Cohort) -> None:
    """The same unconstrained coordinates must give the same parameters in both models."""
    center = guide.training_distribution.individual.normal.loc.expand(len(cohort), -1)
    double = cohort.to(dtype=torch.float64)
    values, guide_values = (
        s.constrain(double, center, s.initial_population())[0] for s in (structure, guide.structure)
    )
    for name, value in values.items():
        expected = guide_values[name]
        if value.shape != expected.shape or not torch.allclose(value, expected, rtol=ROUNDING):
            raise GuideError(
                f"The individual site {name!r} has another shape or support than in the guide's "
                "own model.",
                "individual parameters on the same scale.",
                "keep the distribution's support (for instance Normal on the log scale), or "
                "train a new guide.",
            )
