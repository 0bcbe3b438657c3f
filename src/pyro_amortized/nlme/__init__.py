r"""For model writers: tables, closed-form pharmacokinetics, ODEs with doses, residual
error, recording.
"""

from .compartments import one_compartment as one_compartment
from .dynamics import solve as solve
from .recording import Simulated as Simulated
from .recording import recording_probability as recording_probability
from .residual import additive_error as additive_error
from .residual import combined_error as combined_error
from .residual import proportional_error as proportional_error
from .tables import read_table as read_table
from .tables import to_table as to_table
