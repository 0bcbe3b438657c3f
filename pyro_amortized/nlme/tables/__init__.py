r"""NONMEM-style long tables <-> :class:`~pyro_amortized.Cohort`."""

from .table_reader import read_table as read_table
from .table_writer import to_table as to_table
