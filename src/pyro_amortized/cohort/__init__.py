r"""The data of N individuals: observation series, doses, covariates; designs."""

from .cohort import Cohort as Cohort
from .cohort import Design as Design
from .cohort import Index as Index
from .cohort import concatenate as concatenate
from .records import Doses as Doses
from .records import Series as Series
