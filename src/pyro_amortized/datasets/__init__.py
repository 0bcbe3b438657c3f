r"""Cohorts that ship with the library."""

from .pharmacometrics import indometh as indometh
from .pharmacometrics import orange as orange
from .pharmacometrics import phenobarbital as phenobarbital
from .pharmacometrics import warfarin as warfarin
from .theophylline import theophylline as theophylline
