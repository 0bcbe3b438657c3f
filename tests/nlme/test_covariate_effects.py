"""Effects of covariates: by hand."""

import math

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from tests.nlme.kit import f64


def test_allometric_power_linear_and_categorical_effects():
    weight = f64(70.0, 35.0)
    clearance, volume = nlme.allometric(weight)
    assert clearance.tolist() == pytest.approx([1.0, 0.5**0.75])
    assert volume.tolist() == pytest.approx([1.0, 0.5])
    exponent = f64(1.0, 2.0)
    assert nlme.power_effect(weight, 70.0, exponent[..., None]).shape == (2, 2)
    assert nlme.linear_effect(weight, 70.0, 0.01).tolist() == pytest.approx([1.0, 0.65])
    levels = nlme.categorical_effect(f64(0.0, 2.0), torch.tensor([[0.1, 0.2], [0.3, 0.4]]).double())
    assert torch.allclose(
        levels, torch.tensor([[1.0, math.exp(0.2)], [1.0, math.exp(0.4)]]).double()
    )
    with pytest.raises(ModelError, match="individual 1"):
        nlme.power_effect(f64(1.0, 0.0), 70.0, 1.0)
    for wrong in (3.0, -1.0, 0.5):
        with pytest.raises(ModelError, match="Category"):
            nlme.categorical_effect(f64(wrong), f64(0.1, 0.2))
