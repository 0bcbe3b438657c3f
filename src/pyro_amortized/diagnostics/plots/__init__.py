r"""Figures. Every function returns a ``matplotlib.figure.Figure`` and leaves pyplot's state and
styles alone: ``figure.savefig(path)``. Lines and markers differ in form, so that they can be told
apart without colour. matplotlib comes with the extra ``pyro-amortized[plots]``.
"""

from .effects import effects_by_covariate as effects_by_covariate
from .effects import random_effects as random_effects
from .goodness import distribution_errors as distribution_errors
from .goodness import goodness_of_fit as goodness_of_fit
from .individuals import individual_fits as individual_fits
from .prior import prior_predictive as prior_predictive
from .training import battery as battery
from .training import rank_bands as rank_bands
from .training import rank_histogram as rank_histogram
from .training import recovery as recovery
from .training import training_curve as training_curve
from .uncertainty import forest as forest
from .uncertainty import profile as profile
from .vpc import visual_predictive_check as visual_predictive_check
