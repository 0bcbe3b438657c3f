r"""The amortized posterior as a Pyro guide: use, save, load."""

from .guide import AmortizedGuide as AmortizedGuide
from .load import load_guide as load_guide
from .load import structure_for as structure_for
