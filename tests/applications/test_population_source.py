from types import SimpleNamespace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.applications.population_source import Source, source_of
from pyro_amortized.errors import AmortizedError, FitError, GuideError, SettingError

from .kit import VALUES, known, model, patients


def test_known_parameters_are_a_source():
    errors = {"typical": [0.4, 7.0, 0.1]}
    source, certain = source_of(known(standard_errors=errors)), source_of(known())
    structure = source.structure(patients())
    assert source.is_uncertain(structure)
    vectors = source.vectors(structure, 4000, torch.Generator().manual_seed(1))
    assert vectors.std(0)[:3].tolist() == pytest.approx([0.1, 0.1, 0.1], rel=0.06)
    assert bool((vectors[:, 3:] == vectors[0, 3:]).all())
    assert not certain.is_uncertain(structure)
    with pytest.raises(FitError, match="uncertainty of the population parameters is not known"):
        certain.vectors(structure, 3, torch.Generator())
    with pytest.raises(SettingError, match="The covariate 'weight' is given"):
        source.check_covariates({"weight": 1.0})


def test_draws_are_used_equally_often():
    draws = torch.arange(3).double().unsqueeze(1)
    source = Source(model, {}, ("y",), None, None, draws=draws)
    picked = source.vectors(None, 9, torch.Generator().manual_seed(1))
    assert picked[:, 0].long().bincount().tolist() == [3, 3, 3]
    few = source.vectors(None, 2, torch.Generator().manual_seed(1))
    assert len(few.unique()) == 2


@pytest.mark.parametrize(("estimator", "kept"), [("corrected", False), ("likelihood-free", True)])
def test_a_guide_that_does_not_take_the_data_is_left_out(estimator, kept):
    def check(cohort):
        if not cohort.covariates:
            raise GuideError("The cohort has no covariates.")

    guide = SimpleNamespace(posterior=SimpleNamespace(encoder=SimpleNamespace(check=check)))
    fit = SimpleNamespace(guide=guide, estimator=estimator)
    source = Source(model, VALUES, ("y",), None, None, fit=fit)
    assert (source.guide_for(patients()) is guide) == kept
    assert source.guide_for(patients(covariates={"weight": torch.ones(1)})) is guide


def test_a_model_whose_series_are_not_known():
    with pytest.raises(FitError, match="not known which series the model observes"):
        source_of(pa.population(lambda cohort: None, {}))


def test_a_standard_error_has_the_shape_of_its_estimate():
    with pytest.raises(AmortizedError, match="as many as the estimate has"):
        known(standard_errors={"typical": [0.4, 7.0]})
    assert known(standard_errors={"typical": 0.4}).standard_errors["typical"] == 0.4
