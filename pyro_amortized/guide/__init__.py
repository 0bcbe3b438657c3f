r"""The amortized posterior as a Pyro guide: use, save, load."""

from .guide_loading import load_guide as load_guide
from .guide_loading import structure_for as structure_for
from .pyro_guide import AmortizedGuide as AmortizedGuide
