r"""Checks, figures and reports: calibration of guides, checks of models, data and fits, residuals.

:func:`diagnose` runs all checks of a fit, :func:`report` writes a page about it, and
:func:`to_arviz` exports results to ArviZ. The parts, each of which uses those before it:

- ``variables``: what results are compared with; ``check_results``: what a check says.
- ``measurements``, ``events``, ``effects``: recorded values, events and random effects against the
  model.
- ``guide_calibration``: the guide on simulated individuals. ``data_mistakes``: mistakes in the
  data.
- ``diagnosis``: all checks together.
- ``plots``, ``reports``, ``export``: figures, pages and tables, results for ArviZ.
"""

from .case_influence import CaseInfluence as CaseInfluence
from .case_influence import case_influence as case_influence
from .check_results import Check as Check
from .data_check import DataCheck as DataCheck
from .data_check import check_data as check_data
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .effects.random_effect_analysis import RandomEffectTests as RandomEffectTests
from .effects.random_effect_analysis import random_effect_tests as random_effect_tests
from .events.event_residuals import EventResiduals as EventResiduals
from .events.event_residuals import event_residuals as event_residuals
from .export.arviz_export import to_arviz as to_arviz
from .guide_calibration.calibration import calibrate as calibrate
from .guide_calibration.calibration_result import Calibration as Calibration
from .guide_calibration.parameter_influence import influence as influence
from .measurements.residual_analysis import Residuals as Residuals
from .measurements.residual_analysis import residuals as residuals
from .model_check import ModelCheck as ModelCheck
from .model_check import check_model as check_model
from .model_graph import model_drawing as model_drawing
from .reports.html_report import report as report
from .reports.parameter_table import ParameterTable as ParameterTable
from .reports.parameter_table import individual_table as individual_table
from .reports.parameter_table import parameter_table as parameter_table
