import pytest
import torch

from pyro_amortized.population.exact_likelihood import ExactLikelihood
from pyro_amortized.population.fitted_following import follow
from pyro_amortized.population.interpolated_likelihood import InterpolatedLikelihood


@pytest.mark.slow
def test_an_interpolated_likelihood_is_the_exact_one(fit, population_draws):
    """Inside the box to many digits, outside by the program itself."""
    structure = fit.structure
    shared = structure.coordinates(structure.shared)
    radius = 5 * fit.covariance.diagonal()[shared].sqrt()
    following = follow(fit.individuals, fit.search.scale).only(shared)
    likelihood = ExactLikelihood(fit.individuals, following)
    quick = InterpolatedLikelihood(likelihood, fit.vector[shared], radius)
    scale = torch.linalg.cholesky(fit.covariance)
    generator = torch.Generator().manual_seed(0)
    for size in (0.0, 1.0, 2.0, 12.0):
        noise = torch.randn(len(fit.vector), generator=generator).double()
        population = structure.constrain_population(fit.vector + size * scale @ noise)
        exact = likelihood(population)
        assert torch.allclose(quick(population), exact, atol=1e-4)
    assert isinstance(population_draws.likelihood, InterpolatedLikelihood)
