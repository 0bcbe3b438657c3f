r"""The data of N individuals: series of observations, doses and covariates."""

from .category_alignment import with_categories_of as with_categories_of
from .cohort import Cohort as Cohort
from .cohort import Design as Design
from .concatenation import concatenate as concatenate
from .concatenation import end_to_end as end_to_end
from .doses import Doses as Doses
from .individual_index import Index as Index
from .labels import Labels as Labels
from .labels import are_default_labels as are_default_labels
from .recording_indicator import RECORDED as RECORDED
from .recording_indicator import after_dropout as after_dropout
from .recording_indicator import as_recorded as as_recorded
from .recording_indicator import as_scheduled as as_scheduled
from .recording_indicator import check_indicators as check_indicators
from .recording_indicator import dropout_of as dropout_of
from .recording_indicator import series_with_indicator as series_with_indicator
from .recording_indicator import with_recorded as with_recorded
from .series import Series as Series
