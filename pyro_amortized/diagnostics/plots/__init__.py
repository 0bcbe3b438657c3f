r"""Figures of fits, calibrations and checks.

Every function returns a ``matplotlib.figure.Figure``, to be saved by ``figure.savefig(path)``, and
does not change the state or the styles of pyplot. Lines and markers differ in form as well as in
colour. matplotlib comes with the extra ``pyro-amortized[plots]``.
"""

from .calibration_plots import rank_bands as rank_bands
from .calibration_plots import rank_histogram as rank_histogram
from .calibration_plots import recovery as recovery
from .data_plots import covariates as covariates
from .data_plots import observations as observations
from .diagnosis_plots import battery as battery
from .dose_plots import expected_errors as expected_errors
from .dose_plots import recommended_dose as recommended_dose
from .event_plots import event_curves as event_curves
from .event_plots import event_errors as event_errors
from .incidence_plots import cumulative_incidences as cumulative_incidences
from .individual_plots import individual_fits as individual_fits
from .predictive_check_plots import visual_predictive_check as visual_predictive_check
from .prior_plots import prior_predictive as prior_predictive
from .random_effect_plots import effects_by_covariate as effects_by_covariate
from .random_effect_plots import random_effects as random_effects
from .residual_plots import distribution_errors as distribution_errors
from .residual_plots import goodness_of_fit as goodness_of_fit
from .search_plots import searched_path as searched_path
from .share_plots import category_shares as category_shares
from .simulation_plots import simulated_bands as simulated_bands
from .training_plots import training_curve as training_curve
from .uncertainty_plots import forest as forest
from .uncertainty_plots import profile as profile
