import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import SettingError


def test_a_study_has_placeholders_that_count_as_recorded():
    cohort = nlme.study(
        {"y": [1, 2], "z": [3]},
        nlme.regimen(2, per="weight"),
        num_individuals=2,
        covariates={"weight": [50.0, 80.0], "age": 40},
    )
    assert cohort.num_observations == 6
    assert cohort.doses.amounts.tolist() == [[100.0], [160.0]]
    assert cohort.covariates["age"].tolist() == [40.0, 40.0]
    own = nlme.study(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), num_individuals=2)
    assert own["dv"].times[1].tolist() == [3.0, 4.0]
    assert own.doses is None


def test_what_is_no_study():
    with pytest.raises(SettingError, match="Covariate 'weight'"):
        nlme.study([1], num_individuals=2, covariates={"weight": [1.0, 2.0, 3.0]})
    for times in ([], torch.ones(3, 2)):
        with pytest.raises(SettingError, match="`times` has shape"):
            nlme.study(times, num_individuals=2)


def test_times_that_fall_are_named():
    with pytest.raises(SettingError, match="`times` falls from 4 to 1"):
        nlme.study([2.0, 4.0, 1.0])
