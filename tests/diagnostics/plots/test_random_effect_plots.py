"""Figures of random effects."""

import pytest

from pyro_amortized.diagnostics import plots
from pyro_amortized.errors import CohortError


def test_no_covariates_no_figure(fit):
    with pytest.raises(CohortError, match="no covariates"):
        plots.effects_by_covariate(fit)
