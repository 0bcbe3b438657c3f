"""A model whose density has no gradient at some of the draws."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
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
