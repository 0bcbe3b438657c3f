r"""NONMEM-style long tables <-> :class:`~pyro_amortized.Cohort`."""

from .read import read_table as read_table
from .write import to_table as to_table
