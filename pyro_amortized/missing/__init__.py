r"""Missingness: distributions over what is recorded, and designs that draw from them.

A mechanism is a callable ``(cohort, generator) -> Cohort`` that returns the cohort with fewer
recorded values. A design (:data:`~pyro_amortized.cohort.Design`) is a callable
``(num_individuals, generator) -> Cohort``. Missingness that depends on parameters or on the value
itself is part of the model: an observed site named ``<name>_recorded`` (see the page on missing
data).
"""

from .combinations import AllOf as AllOf
from .combinations import OneOf as OneOf
from .combinations import OnlySeries as OnlySeries
from .designs import Remaskable as Remaskable
from .designs import Resample as Resample
from .designs import Schedule as Schedule
from .designs import default_design as default_design
from .mechanisms import BelowLimit as BelowLimit
from .mechanisms import BernoulliMissing as BernoulliMissing
from .mechanisms import ChannelMissing as ChannelMissing
from .mechanisms import Dropout as Dropout
from .mechanisms import Gaps as Gaps
from .mechanisms import Mechanism as Mechanism
from .mechanisms import NumberMissing as NumberMissing
from .mechanisms import PatternsOf as PatternsOf
from .mechanisms import RandomMissing as RandomMissing
from .mechanisms import nothing_missing as nothing_missing
