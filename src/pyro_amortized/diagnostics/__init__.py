r"""Looking at results: calibration, export to ArviZ; figures in
:mod:`pyro_amortized.diagnostics.plots`.
"""

from .calibration import Calibration as Calibration
from .calibration import calibrate as calibrate
from .export import to_arviz as to_arviz
