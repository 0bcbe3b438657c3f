"""The bound with weights per individual, and what the guide can be combined with."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Importance, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.infer.importance import psis_diagnostic, vectorized_importance_weights
from pyro.infer.predictive import WeighedPredictive

import pyro_amortized as pa
from pyro_amortized.errors import FitError, GuideError, ModelError
from pyro_amortized.sampling.importance_weights import importance_estimate
from tests.exact import exact_log_marginal, linear_program
from tests.population.linear_models import exact_population_posterior

SITES = ["mean", "omega", "sigma"]


def at(guide, fit, narrow=1e-4):
    """The guide with its population part (nearly) in one point."""
    return guide.at(fit.vector, narrow * torch.eye(len(fit.vector)).double())


def bound(loss, model, guide, cohort):
    with torch.no_grad():
        return -loss.loss(model, guide, cohort)


def test_many_particles_give_the_exact_marginal_likelihood(linear, linear_guide, fit):
    """At one point of the population the bound is log p(y | Psi) + log p(Psi) - log q(Psi)."""
    guide = at(linear_guide, fit)
    trace = poutine.trace(guide).get_trace(linear)
    trace.compute_log_prob()
    values = {n: trace.nodes[n]["value"] for n in SITES}
    conditioned = poutine.condition(linear_program, values)
    prior = poutine.trace(conditioned).get_trace(linear)
    prior.compute_log_prob()
    log_p = sum(prior.nodes[n]["log_prob_sum"] for n in SITES)
    log_q = sum(trace.nodes[n]["log_prob_sum"] for n in ("_population_latent", *SITES))
    exact = exact_log_marginal(linear, {n: x.double() for n, x in values.items()}).sum()
    place = {"_population_latent": trace.nodes["_population_latent"]["value"]}
    given = poutine.condition(guide, place)
    estimate = bound(pa.MarginalELBO(500), linear_program, given, linear)
    few = bound(Trace_ELBO(num_particles=50), linear_program, given, linear)
    expected = float((exact + log_p - log_q).detach())
    assert abs(estimate - expected) < 0.35  # 40 individuals, 500 draws: standard error 0.15
    assert few < expected - 0.5  # what the guide is off by


def test_a_minibatch_counts_for_all(linear, linear_guide, fit):
    """The mean over minibatches is the whole, at one population."""
    guide = at(linear_guide, fit, 1e-9)
    loss = pa.MarginalELBO(200, num_individuals=40)
    pyro.set_rng_seed(1)
    parts = [bound(loss, linear_program, guide, linear[i : i + 10]) for i in range(0, 40, 10)]
    complete = bound(loss, linear_program, guide, linear)
    assert abs(sum(parts) / 4 - complete) < 1.0
    assert max(parts) - min(parts) > 5  # each alone is scaled to forty individuals


@pytest.mark.slow
def test_svi_finds_the_posterior_on_minibatches(linear, linear_guide, fit):
    guide = linear_guide.at(fit.vector + 0.3, 0.2 * torch.eye(5).double())
    loss = pa.MarginalELBO(20, num_individuals=40)
    svi = SVI(linear_program, guide, pyro.optim.ClippedAdam({"lr": 0.04, "lrd": 0.99}), loss)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(300):
        svi.step(linear[torch.randperm(40, generator=generator)[:20]])
        seen.append(guide.loc.detach().clone())
    location = torch.stack(seen[180:]).mean(0)
    vectors, weights = exact_population_posterior(linear, num_proposals=800)
    mean = weights @ vectors
    exact_sd = (weights @ (vectors - mean) ** 2).sqrt()
    z = (location - mean) / exact_sd
    assert z.abs().max() < 0.6
    sd = (guide.scale_tril @ guide.scale_tril.T).diagonal().sqrt().detach()
    assert (sd / exact_sd).log().abs().max() < 0.6


@pytest.mark.slow
def test_any_guide_of_the_population(linear, linear_guide, fit):
    exposed = poutine.block(linear_program, expose=SITES)
    for kind in (AutoNormal, AutoMultivariateNormal, AutoDelta):
        for loss in (pa.MarginalELBO(5), Trace_ELBO()):
            pyro.clear_param_store()
            pyro.set_rng_seed(1)
            guide = linear_guide.with_population(kind(exposed))
            svi = SVI(linear_program, guide, pyro.optim.Adam({"lr": 0.05}), loss)
            first = sum(svi.step(linear) for _ in range(5))
            for _ in range(15):
                svi.step(linear)
            assert sum(svi.step(linear) for _ in range(5)) < first
        draws = Predictive(linear_program, guide=guide, num_samples=9)(linear)
        assert draws["phi"].shape == (9, 40, 2)
        assert draws["y"].shape == (9, 40, 8)
        middle = guide.median(linear)
        assert middle["phi"].shape == (40, 2)
        assert (middle["mean"] - fit.estimates["mean"]).abs().max() < 0.5
    part = AutoNormal(poutine.block(linear_program, expose=["mean", "omega"]))
    with pytest.raises(GuideError, match="sigma"):
        linear_guide.with_population(part)(linear)


@pytest.mark.slow
def test_networks_are_tuned_on_the_data(linear, linear_guide, fit):
    """A blunted guide improves; the one it was made from stays as it was."""
    before = {n: x.clone() for n, x in linear_guide.posterior.state_dict().items()}
    guide = at(linear_guide, fit).trainable()
    with torch.no_grad():
        guide.posterior.flow.head.bias[2:4] -= 1.0  # too wide
    pyro.clear_param_store()
    svi = SVI(linear_program, guide, pyro.optim.Adam({"lr": 3e-3}), Trace_ELBO())
    first = sum(svi.evaluate_loss(linear) for _ in range(10)) / 10
    for _ in range(80):
        svi.step(linear)
    last = sum(svi.evaluate_loss(linear) for _ in range(10)) / 10
    assert any(n.startswith("amortized_posterior") for n in pyro.get_param_store())
    assert last < first - 5
    after = linear_guide.posterior.state_dict()
    assert all(torch.equal(x, after[n]) for n, x in before.items())
    likelihood = pa.marginal_likelihood(linear_program, linear, fit.estimates, guide=guide, seed=1)
    exact = exact_log_marginal(linear, fit.estimates)
    assert abs(likelihood.total - float(exact.sum())) < 4 * likelihood.total_mc_error


@pytest.mark.slow
def test_the_tools_of_importance_sampling(linear, linear_guide, fit):
    one = linear[:3]
    guide = linear_guide.at(fit.vector, torch.linalg.cholesky(fit.covariance))
    log_weights, _, _ = vectorized_importance_weights(
        linear_program, guide, one, num_samples=200, max_plate_nesting=1
    )
    k = psis_diagnostic(linear_program, guide, one, num_particles=200, max_plate_nesting=1)
    assert math.isfinite(k)
    posterior = Importance(linear_program, guide, 200).run(one)
    one_way = importance_estimate(torch.stack(posterior.log_weights))
    another = importance_estimate(log_weights)
    apart = float(one_way.log_mean - another.log_mean)
    assert abs(apart) < 4 * math.hypot(one_way.mc_error, another.mc_error)
    weighed = WeighedPredictive(linear_program, guide=guide, num_samples=20, parallel=False)
    weighted = weighed(one)
    assert weighted.samples["y"].shape == (20, 3, 8)
    assert weighted.log_weights.shape == (20,)
    held = poutine.condition(linear_program, {"sigma": torch.tensor(0.4)})
    other = poutine.condition(guide, {"sigma": torch.tensor(0.4)})
    assert Predictive(held, guide=other, num_samples=3)(one)["phi"].shape == (3, 3, 2)


def test_what_the_bound_refuses(linear, linear_guide):
    with pytest.raises(FitError, match="num_particles"):
        pa.MarginalELBO(0)
    with pytest.raises(FitError, match="minibatch"):
        pa.MarginalELBO(2, num_individuals=10).loss(linear_program, linear_guide, linear)
    with pytest.raises(FitError, match="Cohort"):
        pa.MarginalELBO(2).loss(lambda x: None, lambda x: None, torch.zeros(3))

    def scaled(cohort):
        with poutine.scale(scale=2.0):
            linear_program(cohort)

    with pytest.raises(ModelError, match="scale"):
        pa.MarginalELBO(2).loss(scaled, linear_guide, linear)
