"""Tables that ship with the library."""

from importlib.resources import as_file, files
from typing import Any

from ..cohort import Cohort
from ..nlme.tables import read_table


def shipped(name: str, **options: Any) -> Cohort:
    """A table of this folder, read with the options of :func:`read_table`."""
    with as_file(files(__package__) / f"{name}.csv") as path:
        return read_table(path, **options)
