import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.likelihood.interpolated_likelihood import InterpolatedLikelihood


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


def counts(cohort):
    """Poisson regression: the observations depend on no population parameter directly."""
    center = pyro.sample("center", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        rate = pyro.sample("rate", dist.Normal(center, spread)).exp()
        y = cohort["y"]
        distribution = dist.Poisson(rate[..., None].expand(y.values.shape)).mask(y.observed)
        pyro.sample("y", distribution.to_event(1), obs=y.values)


def test_without_shared_parameters_the_observations_are_evaluated_once():
    generator = torch.Generator().manual_seed(1)
    rates = (0.5 + 0.4 * torch.randn(20, 1, generator=generator, dtype=torch.float64)).exp()
    values = torch.poisson(rates.expand(-1, 5), generator=generator)
    cohort = pa.Cohort({"y": pa.Series(torch.arange(5.0).expand(20, -1), values)})
    fit = pa.fit_population(counts, cohort, maximum_a_posteriori=True, seed=1)
    draws = pa.sample_population(fit, num_draws=20, num_proposals=100, seed=1)
    assert isinstance(draws.likelihood, InterpolatedLikelihood)
    for vector in [fit.vector, *draws.vectors[:5], fit.vector + 3.0]:
        population = fit.structure.constrain_population(vector)
        exact = ExactLikelihood(draws.likelihood.individuals, draws.likelihood.following)
        assert torch.allclose(draws.likelihood(population), exact(population), atol=1e-10)
