r"""Building blocks of models: tables, doses, closed-form pharmacokinetics, ODEs, distributions of
individual parameters, covariate effects, residual error, censoring, recording, stochastic dynamics,
regimens, studies without data.
"""

from .adaptive_regimens import AdaptiveRegimen as AdaptiveRegimen
from .adaptive_regimens import Measured as Measured
from .adaptive_regimens import adaptive as adaptive
from .censored_distributions import Censored as Censored
from .censored_distributions import Rounded as Rounded
from .censored_distributions import Truncated as Truncated
from .closed_form.compartments import metabolite as metabolite
from .closed_form.compartments import one_compartment as one_compartment
from .closed_form.compartments import three_compartments as three_compartments
from .closed_form.compartments import two_compartments as two_compartments
from .covariate_effects import allometric as allometric
from .covariate_effects import categorical_effect as categorical_effect
from .covariate_effects import completed as completed
from .covariate_effects import linear_effect as linear_effect
from .covariate_effects import power_effect as power_effect
from .dosing import Delivery as Delivery
from .interoccasion_variability import Occasions as Occasions
from .interoccasion_variability import by_occasion as by_occasion
from .interoccasion_variability import occasions as occasions
from .ode import Piecewise as Piecewise
from .ode import Solution as Solution
from .ode import integrate as integrate
from .ode import merge_times as merge_times
from .ode import solve as solve
from .parameter_models import block_factor as block_factor
from .parameter_models import box_cox as box_cox
from .parameter_models import fixed_effects as fixed_effects
from .parameter_models import logitnormal as logitnormal
from .parameter_models import lognormal as lognormal
from .parameter_models import random_effects as random_effects
from .parameter_models import scale_factor as scale_factor
from .pk_families import pk_candidates as pk_candidates
from .recording import recording_probability as recording_probability
from .regimens import Regimen as Regimen
from .regimens import regimen as regimen
from .residual_error import additive_error as additive_error
from .residual_error import combined_error as combined_error
from .residual_error import lognormal_error as lognormal_error
from .residual_error import proportional_error as proportional_error
from .residual_error import student_error as student_error
from .sde import euler_maruyama as euler_maruyama
from .sde import tau_leaping as tau_leaping
from .simulator_distribution import Simulated as Simulated
from .studies import study as study
from .tables import read_table as read_table
from .tables import to_table as to_table
