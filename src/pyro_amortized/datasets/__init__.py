r"""Cohorts that ship with the library."""

from .theophylline import theophylline as theophylline
