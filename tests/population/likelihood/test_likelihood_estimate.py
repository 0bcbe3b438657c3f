"""Marginal likelihoods at given populations against the exact linear Gaussian model."""

import pyro
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import GuideError, ModelError
from pyro_amortized.population.likelihood.likelihood_estimate import (
    MarginalLikelihood,
    log_marginal,
)
from pyro_amortized.sampling.importance_weights import importance_estimate
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_program


def test_marginal_likelihood_is_exact_per_individual(linear, linear_guide):
    likelihood = pa.marginal_likelihood(
        linear_program, linear, TRUTH, guide=linear_guide, num_draws=2000
    )
    exact = exact_log_marginal(linear, TRUTH)
    z = (likelihood.log_likelihood - exact) / likelihood.mc_error.clamp(min=1e-9)
    assert z.abs().max() < 4  # the largest of 40
    assert abs(likelihood.total - exact.sum()) < 3 * likelihood.total_mc_error
    assert likelihood.total_mc_error < 0.1
    assert (likelihood.pareto_k <= 0.7).all()
    assert likelihood.minus2ll == pytest.approx(-2 * likelihood.total)


@pytest.mark.slow
def test_marginal_likelihood_without_bias(linear, linear_guide):
    """Over many seeds the errors have mean zero and the size that is claimed."""
    exact = exact_log_marginal(linear, TRUTH)
    differences, errors = [], []
    for seed in range(20):
        likelihood = pa.marginal_likelihood(
            linear_program, linear, TRUTH, guide=linear_guide, num_draws=300, seed=seed
        )
        differences.append(likelihood.log_likelihood - exact)
        errors.append(likelihood.mc_error)
    difference, error = torch.stack(differences), torch.stack(errors)
    # Of errors below a thousandth the last draws in the tail decide.
    z, large = difference / error.clamp(min=1e-3), error > 1e-3
    assert abs(float(z.mean())) < 0.25
    assert float(z.square().mean()) < 1.4
    assert float(z[large].square().mean()) > 0.3


@pytest.mark.slow
def test_refinement_is_without_bias(linear):
    """Draws that adapt must not estimate: reused, they bias the total by several of its errors."""
    tight = dict(TRUTH, omega=TRUTH["omega"] / 3)
    exact = exact_log_marginal(linear, tight).sum()
    z = []
    for seed in range(20):
        likelihood = pa.marginal_likelihood(linear_program, linear, tight, num_draws=300, seed=seed)
        z.append((likelihood.total - float(exact)) / likelihood.total_mc_error)
    assert likelihood.method.count("student-t mixture") > 20
    # Jensen's bias of the log is half the summed variance, under a tenth of an error here.
    assert abs(sum(z) / 20) < 0.8


def test_uncorrected_guide_far_off_is_refined(linear, linear_guide):
    """Far from where the guide was trained its weights are poor; the refinement corrects this."""
    far = {k: v.clone() for k, v in TRUTH.items()}
    far["sigma"] = torch.tensor(0.02, dtype=torch.float64)
    exact = exact_log_marginal(linear, far)
    with pytest.warns(pa.AmortizedWarning, match="were not refined"):
        plain = pa.marginal_likelihood(
            linear_program, linear, far, guide=linear_guide, refine=False
        )
    refined = pa.marginal_likelihood(linear_program, linear, far, guide=linear_guide)
    assert refined.total_mc_error < 0.5 * plain.total_mc_error
    assert abs(refined.total - exact.sum()) < 3 * refined.total_mc_error
    assert "student-t mixture" in refined.method


def test_log_marginal_moves_with_the_population(linear, linear_guide):
    individuals = pa.sample_individuals(
        linear_program, linear, TRUTH, guide=linear_guide, num_draws=4000
    )
    vector = linear_guide.structure.unconstrain_population(TRUTH).requires_grad_()
    population = linear_guide.structure.constrain_population(vector)
    (gradient,) = torch.autograd.grad(log_marginal(individuals, population).sum(), vector)
    exact_vector = vector.detach().clone().requires_grad_()
    exact = exact_log_marginal(linear, linear_guide.structure.constrain_population(exact_vector))
    (exact_gradient,) = torch.autograd.grad(exact.sum(), exact_vector)
    standard_error = exact_fit(linear)[2].diagonal().sqrt()  # the score's own unit is its inverse
    assert ((gradient - exact_gradient) * standard_error).abs().max() < 0.1


def test_bad_populations_are_refused(linear, linear_guide):
    with pytest.raises(ModelError, match="no \\['sigma'\\]"):
        pa.marginal_likelihood(
            linear_program, linear, {n: TRUTH[n] for n in ("mean", "omega")}, guide=linear_guide
        )
    bad = dict(TRUTH, sigma=torch.tensor(-1.0))
    with pytest.raises(ModelError, match="support"):
        pa.marginal_likelihood(linear_program, linear, bad, guide=linear_guide)


def test_other_individual_sites_are_refused(linear, linear_guide):
    def other(cohort):
        with pyro.plate("individual", len(cohort)):
            slope = pyro.sample("slope", pyro.distributions.Normal(0.0, 1.0))
            y = cohort["y"]
            distribution = pyro.distributions.Normal(slope[..., None] * y.times, 1.0)
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    with pytest.raises(GuideError, match="individual sites"):
        pa.marginal_likelihood(other, linear, {}, guide=linear_guide)


def test_the_logarithm_of_many_individuals_has_no_bias():
    """Means of 20 log-normal weights, whose exact mean is one, of 40,000 individuals."""
    generator = torch.Generator().manual_seed(1)
    spread = 0.7
    log_weights = spread * torch.randn(20, 40_000, generator=generator, dtype=torch.float64)
    estimate = importance_estimate(log_weights - spread**2 / 2)
    parts = (estimate.log_mean, estimate.mc_error, estimate.ess, estimate.pareto_k)
    numbers = torch.full((40_000,), 20)
    plain = MarginalLikelihood(*parts, numbers, ("population",) * 40_000)
    better = plain.without_log_bias()
    assert plain.total < -10 * plain.total_mc_error
    assert abs(better.total) < 0.2 * abs(plain.total)
    assert better.total_mc_error == plain.total_mc_error


def test_some_individuals_keep_their_values(linear):
    likelihood = pa.marginal_likelihood(linear_program, linear, TRUTH, num_draws=100)
    rows = torch.tensor([7, 3])
    part = likelihood.take(rows)
    assert torch.equal(part.log_likelihood, likelihood.log_likelihood[rows])
    assert part.method == (likelihood.method[7], likelihood.method[3])
