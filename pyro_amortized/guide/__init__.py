r"""The amortized posterior as a Pyro guide: use, save, load."""

from .other_models import structure_for as structure_for
from .pyro_guide import AmortizedGuide as AmortizedGuide
from .saved_guides import load_guide as load_guide
