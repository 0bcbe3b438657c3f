r"""For model writers: tables, doses, closed-form pharmacokinetics, ODEs, effects, residual error,
censoring, recording, stochastic dynamics.
"""

from .censoring import Censored as Censored
from .censoring import Rounded as Rounded
from .censoring import Truncated as Truncated
from .compartments import metabolite as metabolite
from .compartments import one_compartment as one_compartment
from .compartments import three_compartments as three_compartments
from .compartments import two_compartments as two_compartments
from .delivery import Delivery as Delivery
from .dynamics import Piecewise as Piecewise
from .dynamics import Solution as Solution
from .dynamics import integrate as integrate
from .dynamics import merge_times as merge_times
from .dynamics import solve as solve
from .effects import Occasions as Occasions
from .effects import allometric as allometric
from .effects import block_factor as block_factor
from .effects import box_cox as box_cox
from .effects import by_occasion as by_occasion
from .effects import categorical_effect as categorical_effect
from .effects import fixed_effects as fixed_effects
from .effects import linear_effect as linear_effect
from .effects import logitnormal as logitnormal
from .effects import lognormal as lognormal
from .effects import occasions as occasions
from .effects import power_effect as power_effect
from .effects import random_effects as random_effects
from .effects import scale_factor as scale_factor
from .recording import Simulated as Simulated
from .recording import recording_probability as recording_probability
from .residual import additive_error as additive_error
from .residual import combined_error as combined_error
from .residual import lognormal_error as lognormal_error
from .residual import proportional_error as proportional_error
from .residual import student_error as student_error
from .stochastic import euler_maruyama as euler_maruyama
from .stochastic import tau_leaping as tau_leaping
from .tables import read_table as read_table
from .tables import to_table as to_table
