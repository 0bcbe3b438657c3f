"""Categories by name: in a cohort, its choices and copies, files, tables and model searches."""

import logging
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.applications.model_search.program_lines import program_lines
from pyro_amortized.applications.model_search.search_candidates import covariate_effect
from pyro_amortized.cohort import with_categories_of
from pyro_amortized.cohort.named_tensors import cohort_of, cohort_tensors
from pyro_amortized.encode.cohort_form import Form, check_form
from pyro_amortized.errors import CohortError, GuideError
from pyro_amortized.model.extended_program import Entry, Extension
from tests.cohort.kit import refused

NAMES = {"sex": ("female", "male, or not said")}


def cohort(values=(0.0, 1.0, 1.0), names=None):
    x = torch.zeros(3, 1)
    covariates = {"sex": torch.tensor(values), "weight": torch.tensor([50.0, 60.0, 70.0])}
    return pa.Cohort(
        {"y": pa.Series(x, x)}, covariates=covariates, categories=NAMES if names is None else names
    )


def test_names_go_wherever_the_individuals_go():
    data = cohort()
    assert data.is_category("sex", "female").tolist() == [True, False, False]
    assert "female (1), male, or not said (2)" in str(data)
    copies = [
        data[1:],
        data.repeat(2),
        data.to(dtype=torch.float64),
        pickle.loads(pickle.dumps(data)),
        replace(data, ids=("a", "b", "c")),
        pa.concatenate([data, data]),
        cohort_of(cohort_tensors(data), data.ids),
        data.with_observed({"y": torch.ones(3, 1).bool()}),
    ]
    for other in copies:
        assert dict(other.categories) == NAMES
        assert other.is_category("sex", "female").sum() in (0, 1, 2)


def test_what_is_refused():
    with pytest.raises(CohortError, match="no category 'other'"):
        cohort().is_category("sex", "other")
    with pytest.raises(CohortError, match="a covariate with names"):
        cohort().is_category("weight", "heavy")
    refused("no covariate", lambda: cohort(names={"age": ("old",)}))
    refused("has the categories", lambda: cohort((0.0, 1.0, 2.0)))
    refused("has the categories", lambda: cohort((0.0, 0.5, 1.0)))
    refused("different names", lambda: cohort(names={"sex": ("a", "a")}))
    refused("different names", lambda: cohort(names={"sex": "ab"}))
    other = cohort(names={"sex": ("male", "female")})
    refused("concatenated", lambda: pa.concatenate([cohort(), other]))


def test_texts_of_a_table_are_categories(caplog):
    frame = pd.DataFrame(
        {
            "ID": [1, 1, 2, 3],
            "TIME": [0.0, 1.0, 0.0, 0.0],
            "DV": [1.0, 2.0, 3.0, 4.0],
            "SEX": ["M", None, "F", "M"],
            "ARM": [1, 1, 2, 2],
        }
    )
    with caplog.at_level(logging.WARNING):
        data = nlme.read_table(frame, covariates=["SEX", "ARM"])
    assert "SEX has categories: 0 = F, 1 = M" in caplog.text
    assert data.covariates["SEX"].tolist() == [1.0, 0.0, 1.0]
    assert dict(data.categories) == {"SEX": ("F", "M")}
    written = nlme.to_table(data)
    assert written["SEX"].tolist() == ["M", "M", "F", "M"]
    assert dict(nlme.read_table(written, covariates=["SEX"]).categories) == {"SEX": ("F", "M")}


def test_a_search_has_the_names():
    x = torch.zeros(9, 1)
    codes = torch.tensor([0.0, 1.0, 2.0] * 3)
    data = pa.Cohort(
        {"y": pa.Series(x, x)}, covariates={"arm": codes}, categories={"arm": ("a", "b", "c")}
    )
    effect = covariate_effect(data, "arm", None, Entry("phi", 0, "phi[CL]"), 0.3)
    assert effect.form == "category"
    assert effect.names == ("b", "c")

    fit = SimpleNamespace(estimates={"arm_on_phi_CL": torch.tensor([0.1, 0.2])})
    lines = program_lines(Extension((effect,)), fit)
    assert 'arm_on_phi_CL[..., 1, None] * cohort.is_category("arm", "c")' in lines


def test_categories_of_cohorts_that_have_others_are_joined_by_name():
    women, men = (
        cohort((0.0, 0.0, 0.0), {"sex": ("F",)}),
        cohort((0.0, 1.0, 0.0), {"sex": ("M", "F")}),
    )
    both = pa.concatenate([women, men])
    assert both.categories["sex"] == ("F", "M")
    assert both.is_category("sex", "M").tolist() == [False, False, False, True, False, True]
    assert both.covariates["sex"].tolist() == [0.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    again = with_categories_of(men, {"sex": ("F", "M"), "race": ("A",)})
    assert again.covariates["sex"].tolist() == [1.0, 0.0, 1.0]
    assert again.is_category("sex", "M").tolist() == men.is_category("sex", "M").tolist()
    assert with_categories_of(again, again.categories) is again
    unnamed = replace(men, categories={})
    assert with_categories_of(unnamed, {"sex": ("F", "M")}).covariates["sex"].tolist() == [0, 1, 0]
    refused("'sex' is 'M'", lambda: with_categories_of(men, {"sex": ("F", "X")}))


def test_a_guide_refuses_categories_with_other_numbers():
    form = Form.of(cohort(names={"sex": ("F", "M")}), ["y"])
    check_form(cohort(names={"sex": ("F", "M")}), form)
    with pytest.raises(GuideError, match=r"\['M', 'F'\][\s\S]*read_table|categories="):
        check_form(cohort(names={"sex": ("M", "F")}), form)
