"""Extreme numbers: results are finite, or reported as unreliable."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.sampling.importance_weights import (
    importance_estimate,
    log_moments,
    normalized_weights,
)
from pyro_amortized.sampling.student_mixture import fit_student_mixture
from tests.exact import TRUTH, exact_log_marginal, linear_program

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def scored(*args, **kwargs):
    """The marginal likelihood, without the warning about poor weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        return pa.marginal_likelihood(*args, **kwargs)


def test_single_precision_data_score_as_double(linear, linear_guide):
    likelihoods = [
        pa.marginal_likelihood(
            linear_program, cohort, TRUTH, guide=linear_guide, num_draws=500, seed=1
        )
        for cohort in (linear, linear.to(dtype=torch.float32))
    ]
    assert likelihoods[1].log_likelihood.dtype == torch.float64
    apart = (likelihoods[0].log_likelihood - likelihoods[1].log_likelihood).abs()
    assert (apart < 1e-5).double().mean() > 0.7
    assert (apart < 4 * likelihoods[0].mc_error + 1e-5).all()  # who is refined may turn on a digit


@pytest.mark.parametrize(
    "change",
    [
        {"omega": torch.tensor([1e-6, 1e-6])},
        {"omega": torch.tensor([1e6, 1e6])},
        {"sigma": torch.tensor(1e-3)},
        {"sigma": torch.tensor(1e6)},
        {"mean": torch.tensor([1e4, -1e4])},
    ],
    ids=["no variability", "endless variability", "no noise", "all noise", "far away"],
)
def test_extreme_populations_are_scored(change, linear, linear_guide):
    """Finite, and near the exact value; where not, the individual is said to be unreliable."""
    few = linear[:6]
    population = {n: x.double() for n, x in (TRUTH | change).items()}
    likelihood = scored(linear_program, few, population, guide=linear_guide, num_draws=500, seed=1)
    exact = exact_log_marginal(few, population)
    assert not likelihood.log_likelihood.isnan().any()
    good = (likelihood.pareto_k <= 0.7) & (likelihood.ess >= 20)
    z = (likelihood.log_likelihood - exact) / likelihood.mc_error.clamp(min=1e-2)
    assert (z.abs()[good] < 6).all()
    assert good.double().mean() >= 0.5


def test_weights_that_are_all_zero_are_said():
    log_weights = torch.full((100, 2), -math.inf, dtype=torch.float64)
    log_weights[:, 1] = 0.0
    estimate = importance_estimate(log_weights)
    assert estimate.log_mean[0] == -math.inf
    assert estimate.mc_error[0] == math.inf
    assert float(estimate.ess[0]) == 0.0
    assert float(estimate.log_mean[1]) == 0.0
    assert torch.allclose(normalized_weights(log_weights), torch.full((100, 2), 0.01).double())


def test_sums_of_weights_neither_overflow_nor_underflow():
    base = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for shift in (-1e5, -800.0, 800.0, 1e5):
        assert torch.allclose(log_moments(base + shift)[0], log_moments(base)[0] + shift)
        assert torch.allclose(log_moments(base + shift)[1], log_moments(base)[1])
        moved, plain = importance_estimate(base + shift), importance_estimate(base)
        assert torch.allclose(moved.ess, plain.ess)
        assert torch.allclose(moved.mc_error, plain.mc_error)


def test_flows_are_finite_far_outside_their_splines(linear, linear_guide):
    posterior = linear_guide.individual_posterior(linear[:2], TRUTH)
    points = torch.tensor([1.0, 10.0, 1e2, 1e4, 1e8]).double()[:, None, None].expand(-1, 2, 2)
    for sign in (1.0, -1.0):
        x = (sign * points).clone().requires_grad_()
        log_prob = posterior.log_prob(x)
        assert log_prob.isfinite().all()
        assert (log_prob.diff(dim=0) < 0).all()  # the further out, the less likely
        (slope,) = torch.autograd.grad(log_prob.sum(), x)
        assert slope.isfinite().all()


def test_data_far_outside_give_finite_posteriors(linear, linear_guide):
    far = linear[:3].with_values({"y": linear[:3]["y"].values * 1e6})
    draws = linear_guide.individual_posterior(far, TRUTH).sample(torch.Size([50]))
    assert draws.isfinite().all()


def full_program(cohort):
    """A full covariance."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(2, 1.0))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        distribution = dist.MultivariateNormal(mean, scale_tril=omega[:, None] * factor)
        phi = pyro.sample("phi", distribution)
        intercept, slope = phi.unbind(-1)
        y = cohort["y"]
        prediction = intercept[..., None] + slope[..., None] * y.times
        noise = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", noise, obs=y.values)


@pytest.mark.parametrize("correlation", [0.9999, -0.999999])
def test_covariances_near_singular(correlation, linear, linear_guide):
    rest = math.sqrt(1 - correlation**2)
    factor = torch.tensor([[1.0, 0.0], [correlation, rest]]).double()
    population = {n: x.double() for n, x in TRUTH.items()} | {"factor": factor}
    likelihood = scored(
        full_program, linear[:6], population, guide=linear_guide, num_draws=1000, seed=1
    )
    assert likelihood.log_likelihood.isfinite().all()
    exact = []
    for i in range(6):
        y = linear["y"]
        seen = y.observed[i]
        design = torch.stack([torch.ones_like(y.times[i][seen]), y.times[i][seen]], -1)
        half = population["omega"][:, None] * factor
        covariance = design @ half @ half.T @ design.T
        covariance = covariance + population["sigma"] ** 2 * torch.eye(len(design)).double()
        distribution = torch.distributions.MultivariateNormal(
            design @ population["mean"], covariance
        )
        exact.append(distribution.log_prob(y.values[i][seen]))
    z = (likelihood.log_likelihood - torch.stack(exact)) / likelihood.mc_error.clamp(min=1e-2)
    assert z.abs().max() < 6


def test_gradients_are_finite_where_a_variance_vanishes(linear, linear_guide):
    collapsed = pa.marginalize(linear_program, guide=linear_guide, population=TRUTH, num_draws=200)
    values = {n: x.clone().double() for n, x in TRUTH.items()}
    values["omega"] = torch.tensor([1e-4, 0.3]).double()
    values = {n: x.requires_grad_() for n, x in values.items()}
    trace = pyro.poutine.trace(pyro.condition(collapsed, values)).get_trace(linear)
    slopes = torch.autograd.grad(trace.log_prob_sum(), list(values.values()))
    assert all(x.isfinite().all() for x in slopes)


def test_equal_draws_give_a_mixture_all_the_same():
    """A covariance of zero has a factor, and draws stay where they are."""
    draws = torch.ones(30, 2, 2, dtype=torch.float64)
    weights = torch.full((30, 2), 1 / 30, dtype=torch.float64)
    mixture = fit_student_mixture(draws, weights, 2, torch.Generator().manual_seed(0))
    assert mixture.draw(10, torch.Generator().manual_seed(1)).isfinite().all()


def sometimes(cohort):
    """A simulator that fails for a tenth of the individuals."""
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
        y = cohort["y"]
        mean = (phi + 1.28).sqrt()[..., None] + 0 * y.times
        pyro.sample("y", dist.Normal(mean, 0.1).mask(y.observed).to_event(1), obs=y.values)


@pytest.mark.slow
def test_simulations_that_fail_are_counted_and_never_trained_on(linear):
    options = pa.TrainingOptions(max_epochs=2)
    with pytest.warns(pa.AmortizedWarning, match=r"1\d\d? of|%") as caught:
        guide = pa.train(
            sometimes, linear, num_simulations=2000, seed=1, options=options, progress=False
        )
    assert guide.history.num_failed / 2000 == pytest.approx(0.1, abs=0.03)
    assert any("not finite" in str(w.message) for w in caught)
    assert all(math.isfinite(x) for x in guide.history.validation_loss)
