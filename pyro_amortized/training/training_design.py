"""The individuals that are simulated, and which of their values are then missing."""

from ..cohort import Cohort, Design
from ..errors import ModelError
from ..missing.designs import Remaskable, Resample, as_design
from ..missing.mechanisms import nothing_missing
from ..model import ModelStructure, check_recorded
from ..runtime.random_numbers import make_generator
from .training_request import NUM_EXAMPLE


def training_design(structure: ModelStructure, data: Cohort | Design) -> Remaskable:
    r"""The design of a training, or of a calibration of the guide.

    The density of a program without masks holds for complete individuals only: it would take
    placeholders for recorded values. The default design of such a program removes no values.

    Args:
        structure: The model.
        data: A cohort, whose individuals lose values at random, or a design.

    Raises:
        ModelError: Values that the design of the user removes enter the density of the program.
    """
    design = as_design(data)
    try:
        check_recorded(structure, design(NUM_EXAMPLE, make_generator(0)))
    except ModelError:
        if not isinstance(data, Cohort):
            raise
        return Resample(data, nothing_missing)
    return design
