import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import ModelError
from tests.applications.kit import VALUES, known, model, patients, weight_model


def test_the_package_is_the_function():
    result = pa.population(model, VALUES)
    assert result.series == ("y",)
    assert "typical" in repr(result)
    assert pa.population.results.retraining.reasons_to_retrain  # and still a package


def test_series_are_found_without_a_cohort():
    assert pa.population(weight_model, {}).series == ("y",)
    assert pa.population(weight_model, {}).covariates == ("weight",)
    assert known().covariates == ()
    assert known(cohort=patients()).series == ("y",)
    assert pa.population(lambda cohort: None, {}).series == ()


def test_standard_errors_are_carried_to_the_scale_of_the_search():
    errors = {"typical": [0.4, 7.0, 0.1], "b": 0.02}
    result = known(standard_errors=errors)
    structure = result.structure(patients())
    variance = result.covariance(structure).diagonal()
    assert variance[:3].sqrt().tolist() == pytest.approx([0.1, 0.1, 0.1])  # of the logarithms
    assert bool(variance[3:6].isnan().all())  # omega has no errors
    assert float(variance[6].sqrt()) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("estimates", "errors", "message"),
    [
        ({"b": float("nan")}, None, "estimates.'b'. is nan"),
        ({"b": "large"}, None, "estimates.'b'. is 'large'"),
        ({"b": 0.1}, {"c": 0.1}, "standard error of 'c'"),
        ({"b": 0.1}, {"b": -0.1}, "standard error of 'b'"),
    ],
)
def test_what_is_no_value(estimates, errors, message):
    with pytest.raises(ModelError, match=message):
        pa.population(model, estimates, standard_errors=errors)


def test_values_are_checked_with_the_model():
    for change, message in (({"more": 1.0}, "unknown"), ({"b": -1.0}, "'b' is -1.0")):
        with pytest.raises(ModelError, match=message):
            pa.population(model, VALUES | change).structure(patients())
    without = {name: x for name, x in VALUES.items() if name != "b"}
    with pytest.raises(ModelError, match=r"no \['b'\]"):
        pa.population(model, without).structure(patients())
    with pytest.raises(ModelError, match="not callable"):
        pa.population(3, {})
    assert torch.is_tensor(known().estimates["omega"])
