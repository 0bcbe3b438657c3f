r"""The distributions that guides are trained on."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.guide.default_distribution import default_training_distribution
from tests.exact import linear_program


@pytest.mark.slow
def test_training_distribution_has_the_moments_of_the_prior_predictive(linear):
    structure = pa.read_structure(linear_program, linear)
    training = default_training_distribution(structure, linear, 0, inflation=1.0, num_draws=2000)
    normal = training.individual.normal
    assert torch.allclose(normal.loc, torch.tensor([0.5, 0.5]).double(), atol=0.08)
    sd = (normal.scale_tril @ normal.scale_tril.T).diagonal().sqrt()
    assert torch.allclose(sd, torch.full((2,), 2.0**0.5).double(), rtol=0.1)
    assert torch.allclose(training.shared.draws.mean(), torch.tensor(-1.0).double(), atol=0.05)
    x = torch.randn(5, 2, dtype=torch.float64)
    fitted = torch.distributions.MultivariateNormal(normal.loc, scale_tril=normal.scale_tril)
    assert torch.allclose(normal.log_prob(x), fitted.log_prob(x))
