"""A right guide and fit pass all checks; wrong requests are refused."""

from dataclasses import replace

import pytest

from pyro_amortized.diagnostics import diagnose
from pyro_amortized.diagnostics import diagnosis as diagnosis_module
from pyro_amortized.diagnostics.diagnosis import BatterySettings
from pyro_amortized.errors import TrainingError


@pytest.fixture(scope="module")
def diagnosis(fit):
    return diagnose(fit, num_individuals=200, num_draws=400, seed=1)


def test_a_good_guide_and_fit_pass(diagnosis):
    assert diagnosis.passed, diagnosis.verdict
    names = {c.name for c in diagnosis.checks}
    assert {"ranks, corrected", "influence of parameters", "residuals of y"} <= names
    assert len(diagnosis.table()) == len(diagnosis.checks)
    assert diagnosis.data is not None
    assert diagnosis.data.outside == []


def test_a_guide_alone_needs_a_design(linear_guide):
    with pytest.raises(TrainingError, match="without a design"):
        diagnose(linear_guide)


def test_of_a_large_cohort_some_individuals_are_looked_at(fit, monkeypatch):
    monkeypatch.setattr(diagnosis_module, "DIAGNOSIS", BatterySettings(max_individuals=25))
    found = diagnose(replace(fit, guide=None))
    (of_size,) = [c for c in found.checks if c.name == "individuals that are looked at"]
    assert of_size.status == "passed"
    assert "25 of 40 individuals" in of_size.words
    assert len(set(found.residuals[0].ids)) == 25
