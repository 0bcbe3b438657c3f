r"""The data of N individuals: observation series, doses, covariates; designs."""

from .checked import Index as Index
from .cohort import Cohort as Cohort
from .cohort import Design as Design
from .doses import Doses as Doses
from .labels import Labels as Labels
from .labels import are_numbers as are_numbers
from .recorded import RECORDED as RECORDED
from .recorded import as_recorded as as_recorded
from .recorded import as_scheduled as as_scheduled
from .recorded import check_told as check_told
from .recorded import told as told
from .recorded import with_recorded as with_recorded
from .records import Series as Series
from .together import concatenate as concatenate
from .together import end_to_end as end_to_end
