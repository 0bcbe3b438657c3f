r"""Looking at results: calibration, the battery of checks, residuals, data against training, export
to ArviZ; figures in :mod:`pyro_amortized.diagnostics.plots`, a page by :func:`report`.
"""

from .battery import Check as Check
from .battery import Diagnosis as Diagnosis
from .battery import diagnose as diagnose
from .calibration import Calibration as Calibration
from .calibration import calibrate as calibrate
from .data import DataCheck as DataCheck
from .data import check_data as check_data
from .drawing import model_drawing as model_drawing
from .explain import ModelCheck as ModelCheck
from .explain import check_model as check_model
from .export import to_arviz as to_arviz
from .influence import influence as influence
from .report import report as report
from .residuals import Residuals as Residuals
from .residuals import residuals as residuals
