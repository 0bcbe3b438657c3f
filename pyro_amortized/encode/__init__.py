r"""Incomplete data -> numbers that a network can read.

An *encoding* (:class:`Tokens`, :class:`FillIn`, :class:`Indicator`, :class:`TimeLabels`,
:class:`Deletion`) is a choice; an *encoder* is that choice for cohorts of one form, with scales
taken from recorded values of simulated data.
"""

from .baselines import Deletion as Deletion
from .baselines import FillIn as FillIn
from .baselines import Indicator as Indicator
from .baselines import TimeLabels as TimeLabels
from .cohort_form import Form as Form
from .encoded_data import Encoded as Encoded
from .encoder import Encoder as Encoder
from .encoder import Encoding as Encoding
from .standardization import Standardize as Standardize
from .tokens import TokenEncoder as TokenEncoder
from .tokens import Tokens as Tokens
