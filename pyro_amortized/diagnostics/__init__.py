r"""Checks, figures and reports: calibration of guides, checks of models, data and fits, residuals.

Figures are in :mod:`pyro_amortized.diagnostics.plots`. :func:`diagnose` runs all checks of a fit,
:func:`report` writes a page about it, and :func:`to_arviz` exports results to ArviZ.
"""

from .arviz_export import to_arviz as to_arviz
from .calibration import calibrate as calibrate
from .calibration_result import Calibration as Calibration
from .case_influence import CaseInfluence as CaseInfluence
from .case_influence import case_influence as case_influence
from .check_results import Check as Check
from .data_check import DataCheck as DataCheck
from .data_check import check_data as check_data
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .event_residuals import EventResiduals as EventResiduals
from .event_residuals import event_residuals as event_residuals
from .html_report import report as report
from .model_check import ModelCheck as ModelCheck
from .model_check import check_model as check_model
from .model_graph import model_drawing as model_drawing
from .parameter_influence import influence as influence
from .parameter_table import ParameterTable as ParameterTable
from .parameter_table import individual_table as individual_table
from .parameter_table import parameter_table as parameter_table
from .random_effect_analysis import RandomEffectTests as RandomEffectTests
from .random_effect_analysis import random_effect_tests as random_effect_tests
from .residual_analysis import Residuals as Residuals
from .residual_analysis import residuals as residuals
