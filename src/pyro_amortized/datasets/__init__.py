r"""Cohorts that ship with the library.

The docstring of each function names the publication that the measurements come from. The tables of
this folder hold the measurements alone, in the columns of NONMEM. Measurements are facts; no text
and no code of the publications, or of the packages that distribute the data, is copied.
"""

from .pharmacometrics import indometh as indometh
from .pharmacometrics import orange as orange
from .pharmacometrics import phenobarbital as phenobarbital
from .pharmacometrics import warfarin as warfarin
from .theophylline import theophylline as theophylline
