"""Variants of the linear Gaussian model, which have an exact likelihood."""

import pyro
import pyro.distributions as dist
import torch

from pyro_amortized.numerics.maximization import maximize
from tests.exact import exact_fit, exact_log_marginal, unpack


def common_program(cohort):
    """One standard deviation for both parameters."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        observe(cohort, phi, sigma)


def observe(cohort, phi, sigma):
    intercept, slope = phi.unbind(-1)
    y = cohort["y"]
    prediction = intercept[..., None] + slope[..., None] * y.times
    distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
    pyro.sample("y", distribution, obs=y.values)


def exact_population_posterior(cohort, num_proposals=1500):
    """Weighted draws of (mean, log omega, log sigma) of ``linear_program``: vectors, weights.

    Importance sampling of the closed form, with Student proposals around its mode.
    """

    def log_posterior(vector):
        mean, log_omega, log_sigma = vector[:2], vector[2:4], vector[4]
        prior = dist.Normal(0.5, 1.0).log_prob(mean).sum()
        prior = prior + (dist.HalfNormal(1.0).log_prob(log_omega.exp()) + log_omega).sum()
        prior = prior + dist.Normal(-1.0, 0.5).log_prob(log_sigma)
        return exact_log_marginal(cohort, unpack(vector)).sum() + prior

    mode = maximize(log_posterior, exact_fit(cohort)[0]).vector
    hessian = torch.autograd.functional.hessian(log_posterior, mode)
    scale = torch.linalg.cholesky(torch.linalg.inv(-hessian))
    proposal = dist.MultivariateStudentT(torch.tensor(10.0).double(), mode, scale)
    vectors = proposal.sample(torch.Size([num_proposals]))
    with torch.no_grad():
        log_weights = torch.stack([log_posterior(v) for v in vectors]) - proposal.log_prob(vectors)
    weights = log_weights.softmax(0)
    assert 1 / weights.pow(2).sum() > 0.4 * num_proposals
    return vectors, weights
