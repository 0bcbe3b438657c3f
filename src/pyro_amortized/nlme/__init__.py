r"""For model writers: tables, closed-form pharmacokinetics, ODEs with doses, residual
error, recording.
"""

from .compartments import one_compartment as one_compartment
from .compartments import metabolite as metabolite
from .compartments import three_compartments as three_compartments
from .compartments import two_compartments as two_compartments
from .delivery import Delivery as Delivery
from .dynamics import Control as Control
from .dynamics import Piecewise as Piecewise
from .dynamics import Solution as Solution
from .dynamics import integrate as integrate
from .dynamics import solve as solve
from .recording import Simulated as Simulated
from .recording import recording_probability as recording_probability
from .residual import additive_error as additive_error
from .residual import combined_error as combined_error
from .residual import proportional_error as proportional_error
from .tables import read_table as read_table
from .tables import to_table as to_table
