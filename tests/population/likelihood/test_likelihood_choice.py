"""A model whose density has no gradient at some of the draws."""

import functools
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.population.likelihood.likelihood_choice import make_likelihood
from tests.small import NETWORKS

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


@pytest.mark.slow
def test_draws_without_a_gradient_do_not_end_a_fit():
    """Half of the draws of some individuals lie where the program takes the root of something
    negative: density NaN, gradient NaN.
    """
    generator = torch.Generator().manual_seed(1)
    times = torch.linspace(0.5, 4, 6).double().expand(30, -1).clone()
    phi = 0.4 * torch.randn(30, 1, generator=generator).double()
    noise = 0.2 * torch.randn(30, 6, generator=generator).double()
    cohort = pa.Cohort({"y": pa.Series(times, phi.exp() * times.sqrt() + noise)})

    def rooted(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega))
            y = cohort["y"]
            predicted = ((phi[..., None] + 0.9) * y.times / 0.9).sqrt()
            distribution = dist.Normal(predicted, sigma[..., None] * (predicted + 0.1))
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    with warnings.catch_warnings():  # of simulations that failed
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        guide = pa.train(
            rooted,
            cohort,
            num_simulations=4000,
            seed=1,
            options=pa.TrainingOptions(max_epochs=4, batch_size=128),
            networks=NETWORKS,
            progress=False,
        )
        fit = pa.fit_population(rooted, cohort, guide=guide, num_draws=400, seed=1)
    assert fit.converged, fit.message
    assert (fit.individuals.log_weights == -torch.inf).any()
    collapsed = pa.marginalize(rooted, guide=guide, population=fit.estimates)
    values = {name: x.clone().requires_grad_() for name, x in fit.estimates.items()}
    trace = pyro.poutine.trace(pyro.condition(collapsed, values)).get_trace(cohort)
    slopes = torch.autograd.grad(trace.log_prob_sum(), list(values.values()))
    assert torch.stack(slopes).isfinite().all()


def decay(cohort, solved):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    y = cohort["y"]
    with pyro.plate("individual", len(cohort)):
        rate = pyro.sample("rate", dist.LogNormal(mean, 0.3))
        if solved:
            start = torch.ones(1, dtype=torch.float64)
            states = nlme.solve(
                lambda t, x, p: -p["rate"].unsqueeze(-1) * x, start, y.times, {"rate": rate}
            )
            predicted = states[..., 0]
        else:
            predicted = nlme.one_compartment(y.times, cohort.doses, cl=rate, v=rate / rate)
        distribution = dist.Normal(predicted, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


@pytest.mark.parametrize("solved", [True, False])
def test_dynamics_are_not_solved_at_every_population(solved):
    """Population posteriors of a small cohort with an ODE took more than 45 minutes."""
    times = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64).expand(4, -1).clone()
    doses = pa.Doses(torch.zeros(4, 1).double(), torch.ones(4, 1).double())
    cohort = pa.Cohort({"y": pa.Series(times, (-times).exp())}, doses=doses)
    population = {"mean": torch.tensor(0.0), "sigma": torch.tensor(0.2)}
    model = functools.partial(decay, solved=solved)
    individuals = pa.sample_individuals(model, cohort, population, num_draws=50, seed=1)
    likelihood = make_likelihood(individuals, torch.ones(2, dtype=torch.float64))
    assert likelihood.is_expanded == solved
    exact = individuals.marginal_estimate.log_mean
    assert torch.allclose(likelihood(individuals.population), exact, atol=1e-6)
