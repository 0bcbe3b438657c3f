r"""Encodings: how incomplete data become the input of a network.

An *encoding* (:class:`Tokens`, :class:`FillIn`, :class:`Indicator`, :class:`TimeLabels`,
:class:`Deletion`) holds the settings. An *encoder* encodes cohorts of one form by these settings,
with scales that were taken from the recorded values of simulated data.
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
