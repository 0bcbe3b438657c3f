"""Figures of the data before any model."""

import numpy as np
import pytest
import torch

from pyro_amortized import Cohort, Doses, Series, datasets
from pyro_amortized.diagnostics import plots
from pyro_amortized.errors import CohortError, SettingError


def cohort():
    times = torch.tensor([[1.0, 2.0, 4.0, 6.0, 101.0, 103.0]]).double().expand(4, -1)
    values = torch.linspace(1, 6, 24).reshape(4, 6).double()
    values[0, 3] = 0.5
    doses = Doses(torch.tensor([[0.0, 100.0]]).double().expand(4, -1), torch.ones(4, 2).double())
    limits = {"y_low": Series(times, torch.full((4, 6), 0.5).double())}
    arm = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return Cohort({"y": Series(times, values)}, doses, {"ARM": arm}, time_varying=limits)


def points(ax, marker):
    return sum(len(x.get_xdata()) for x in ax.lines if x.get_marker() == marker)


def test_values_limits_doses_and_broken_lines():
    figure = plots.observations(cohort(), stratify="ARM")
    first, second = figure.axes
    assert (points(first, "o"), points(first, "v")) == (11, 1)
    assert (points(second, "o"), points(second, "v")) == (12, 0)
    courses = [x for x in first.lines if x.get_marker() == "None"]
    assert len(courses) == 2
    assert np.isnan(courses[0].get_xdata()).sum() == 1  # no line from 6 h to 101 h
    marks = next(x for x in first.lines if x.get_marker() == "|")
    assert marks.get_xdata().tolist() == [0.0, 100.0]
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"recorded value", "at a limit of quantification", "dose"}


def test_time_after_dose_and_a_logarithmic_axis():
    ax = plots.observations(cohort(), x="time after dose", log=True).axes[0]
    assert ax.get_yscale() == "log"
    drawn = np.concatenate([x.get_xdata() for x in ax.lines if x.get_marker() == "o"])
    assert drawn.max() == 6.0
    courses = [x for x in ax.lines if x.get_marker() == "None"]
    assert len(courses) == 8  # two intervals between doses for each of four individuals


def test_names_of_categories():
    sex = torch.tensor([0.0, 1.0, 0.0, 1.0]).double()
    weight = torch.tensor([50.0, 80.0, 60.0, 90.0]).double()
    names = {"sex": ("female", "male")}
    named = Cohort(dict(cohort().series), covariates={"sex": sex, "WT": weight}, categories=names)
    panels = plots.observations(named, stratify="sex").axes
    titles = [ax.get_title() for ax in panels[:2]]
    assert titles == [f"sex = {name}, 2 individuals" for name in ("female", "male")]
    (of_sex, _, pair, _) = plots.covariates(named).axes
    assert [x.get_text() for x in of_sex.get_xticklabels()] == ["female", "male"]
    assert [x.get_text() for x in pair.get_xticklabels()] == ["female", "male"]
    # Equal values share a rank: (1.5, 3.5, 1.5, 3.5) and (1, 3, 2, 4).
    assert pair.get_title() == "rank correlation 0.89"


def test_covariates_and_mistakes():
    figure = plots.covariates(datasets.warfarin())
    assert len(figure.axes) == len(datasets.warfarin().covariates) ** 2
    with pytest.raises(CohortError, match="no covariate 'SEX'"):
        plots.observations(cohort(), stratify="SEX")
    with pytest.raises(SettingError, match="`x` is 'day'"):
        plots.observations(cohort(), x="day")
    with pytest.raises(CohortError, match="cannot be shown"):
        plots.observations(cohort(), series="z")
    with pytest.raises(CohortError, match="no covariates"):
        plots.covariates(Cohort(dict(cohort().series)))
