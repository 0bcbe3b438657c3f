r"""Cohorts that ship with the library.

The docstring of each function names the publication that the measurements come from. The tables of
this folder hold the measurements alone, in the columns of NONMEM. Measurements are facts; no text
and no code of the publications, or of the packages that distribute the data, is copied.
"""

from .cohorts import indometh as indometh
from .cohorts import orange as orange
from .cohorts import phenobarbital as phenobarbital
from .cohorts import theophylline as theophylline
from .cohorts import warfarin as warfarin
