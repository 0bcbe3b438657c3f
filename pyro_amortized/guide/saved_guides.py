r"""Guides that were saved, loaded again."""

from collections.abc import Sequence
from pathlib import Path

from ..cohort import Cohort
from ..model import Model, read_structure
from .files.guide_folder import check_folder, parts_of, read_guide
from .pyro_guide import AmortizedGuide, assembled_guide


def load_guide(
    path: str | Path, model: Model, cohort: Cohort, *, classes: Sequence[type] = ()
) -> AmortizedGuide:
    r"""Load a guide that :meth:`AmortizedGuide.save` wrote.

    Args:
        path: The folder.
        model: The model that the guide was trained for.
        cohort: Data to read the model with.
        classes: Encodings and summary networks of your own that the guide was trained with.

    Raises:
        GuideError: The folder holds no guide, one whose format cannot be read, or one for other
            individual parameters.
    """
    folder = check_folder(path)
    content = read_guide(folder)
    structure = read_structure(model, cohort)
    return assembled_guide(model, parts_of(folder, content, structure, classes), None, False)
