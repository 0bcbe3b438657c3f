import pytest
import torch

from pyro_amortized.numerics.gaussians import Gaussians


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    scale = root.tril(-1) + torch.diag_embed(root.diagonal(dim1=1, dim2=2).exp())
    return Gaussians(torch.randn(4, 3, generator=generator, dtype=torch.float64), scale)


def test_densities_are_those_of_torch(batch):
    value = torch.randn(6, 4, 3, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(batch.loc, scale_tril=batch.scale_tril)
    assert torch.allclose(batch.log_prob(value), exact.log_prob(value))
    one = Gaussians(batch.loc[0], batch.scale_tril[0])
    first = torch.distributions.MultivariateNormal(one.loc, scale_tril=one.scale_tril)
    assert torch.allclose(one.log_prob(value), first.log_prob(value))


def test_standardized_values_return(batch):
    value = torch.randn(6, 4, 3, dtype=torch.float64)
    assert torch.allclose(batch.scaled(batch.standardized(value)), value)
    one = Gaussians(batch.loc[0], batch.scale_tril[0])
    assert torch.allclose(one.scaled(one.standardized(value)), value)


def test_moments_of_the_draws(batch):
    draws = batch.draw(40_000, torch.Generator().manual_seed(1))
    assert draws.shape == (40_000, 4, 3)
    sd = batch.standard_deviations
    assert ((draws.mean(0) - batch.loc).abs() < 5 * sd / 200).all()
    assert torch.allclose(draws.std(0), sd, rtol=0.03)


def test_correlations_and_parts(batch):
    factor = batch.correlation_factor()
    correlation = factor @ factor.transpose(1, 2)
    assert torch.allclose(correlation.diagonal(dim1=1, dim2=2), torch.ones(4, 3).double())
    assert torch.equal(batch.take(torch.tensor([2])).loc[0], batch.loc[2])
    assert batch.expand(torch.Size([5, 4])).reshape(torch.Size([20])).batch_shape == (20,)
    assert batch.map(torch.Tensor.float).scale_tril.dtype == torch.float32
