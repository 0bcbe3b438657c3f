r"""Long tables in the style of NONMEM: read as a :class:`~pyro_amortized.Cohort`, and written."""

from .table_reader import read_table as read_table
from .table_writer import to_table as to_table
