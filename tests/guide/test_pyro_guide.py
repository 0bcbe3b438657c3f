import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Importance, Predictive, RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.infer.importance import vectorized_importance_weights

import pyro_amortized as pa
from pyro_amortized.errors import GuideError
from tests.exact import TRUTH, exact_posterior, linear_program


@pytest.fixture(scope="module")
def placed(fit):
    """The guide with the fit's normal approximation as its population part."""
    return fit.guide.at(fit.vector, torch.linalg.cholesky(fit.covariance))


def test_draws_of_the_whole_posterior(placed, fit, linear):
    draws = placed.sample_posterior(linear, num_samples=4000)
    assert {name: x.shape for name, x in draws.items()} == {
        "mean": (4000, 2),
        "omega": (4000, 2),
        "sigma": (4000,),
        "phi": (4000, 40, 2),
    }
    se = fit.covariance.diagonal().sqrt()
    z = (draws["mean"].mean(0) - fit.vector[:2]) / (se[:2] / 4000**0.5)
    assert z.abs().max() < 4.5
    assert torch.allclose(draws["mean"].std(0), se[:2].to(draws["mean"]), rtol=0.1)
    assert torch.allclose(draws["sigma"].log().std(), se[4].to(draws["sigma"]), rtol=0.1)
    assert draws["phi"].std(0).min() > 0  # each draw has its own individuals


def test_quantiles(placed, fit, linear):
    """Of a normal part that is known exactly, and of the network's posterior, before correction."""
    levels = [0.025, 0.5, 0.975]
    quantiles = placed.quantiles(levels, linear)
    assert quantiles["phi"].shape == (3, 40, 2)
    assert (quantiles["phi"].diff(dim=0) > 0).all()
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(levels))
    se = fit.covariance.diagonal().sqrt()
    expected = fit.vector[2:4] + z.unsqueeze(-1) * se[2:4]
    assert ((quantiles["omega"].log() - expected).abs() < 0.2 * se[2:4]).all()
    # The network's posterior given what the individuals share, before correction.
    posterior = placed.individual_posterior(linear, fit.estimates)
    alone = posterior.rsample(torch.Size([4000])).quantile(torch.tensor(levels).double(), dim=0)
    width = alone[2] - alone[0]
    assert ((quantiles["phi"] - alone).abs() / width).mean() < 0.05
    median = placed.median(linear)["phi"]
    assert ((quantiles["phi"][1] - median).abs() / width).max() < 0.1


def test_what_cannot_be_asked_for(placed, linear):
    with pytest.raises(GuideError, match="between 0 and 1"):
        placed.quantiles([0.5, 1.5], linear)
    with pytest.raises(GuideError, match="at least 1"):
        placed.sample_posterior(linear, num_samples=0)


def test_swaps_in_for_svi_importance_and_predictive(linear, linear_guide):
    for loss in (
        Trace_ELBO(),
        Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        RenyiELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    ):
        pyro.clear_param_store()
        svi = SVI(linear_program, linear_guide, pyro.optim.Adam({"lr": 0.02}), loss)
        losses = [svi.step(linear) for _ in range(5)]
        assert all(torch.tensor(losses).isfinite())
        assert set(pyro.get_param_store().keys()) == {
            "AmortizedGuide.loc",
            "AmortizedGuide.scale_tril",
        }
    pyro.clear_param_store()
    posterior = Importance(linear_program, linear_guide, 10).run(linear)
    assert len(posterior.log_weights) == 10
    predictive = Predictive(linear_program, guide=linear_guide, num_samples=7)(linear)
    assert predictive["phi"].shape == (7, 40, 2)
    assert predictive["y"].shape == (7, 40, 8)
    weights, _, _ = vectorized_importance_weights(
        linear_program, linear_guide, linear, num_samples=5, max_plate_nesting=1
    )
    assert weights.shape == (5,)


def test_same_program_runs_without_the_guide(linear):
    svi = SVI(
        linear_program, AutoNormal(linear_program), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO()
    )
    assert torch.tensor(svi.step(linear)).isfinite()


def test_guide_stands_alone(linear, linear_guide):
    parts = AutoGuideList(linear_program)
    hidden = pyro.poutine.block(linear_program, hide=["phi"])
    parts.append(AutoNormal(hidden))
    other = linear_guide.at(linear_guide.loc, linear_guide.scale_tril)
    parts.append(other)
    with pytest.raises(GuideError, match="AutoGuideList"):
        parts(linear)


def test_guide_follows_the_size_of_its_cohort(linear, linear_guide):
    assert linear_guide(linear)["phi"].shape == (40, 2)
    assert linear_guide(linear[:3])["phi"].shape == (3, 2)
    assert linear_guide.median(linear[:3])["phi"].shape == (3, 2)


def test_guides_density_in_pyro_is_the_proposals(linear, linear_guide):
    """Sum of the guide's log densities in the plate = log q in the support."""
    trace = pyro.poutine.trace(linear_guide).get_trace(linear)
    trace.compute_log_prob()
    plate = trace.nodes["_individual_latent"]["log_prob_sum"] + trace.nodes["phi"]["log_prob_sum"]
    population = {n: trace.nodes[n]["value"] for n in ("mean", "omega", "sigma")}
    posterior = linear_guide.individual_posterior(linear, population)
    assert torch.allclose(plate, posterior.log_prob(trace.nodes["phi"]["value"]).sum())


def test_individuals_from_any_pyro_guide(linear, linear_guide):
    """A plain function, and the amortized guide called through Pyro, as proposals."""

    def plain(cohort):
        with pyro.plate("individual", len(cohort)):
            pyro.sample("phi", dist.Normal(torch.tensor([1.0, 0.5]), 1.0).to_event(1))

    mean, _ = exact_posterior(linear, TRUTH)
    for guide in (plain, lambda cohort: linear_guide(cohort)):
        individuals = pa.sample_individuals(
            linear_program, linear, TRUTH, guide=guide, num_draws=1000
        )
        moments = individuals.moments()
        z = (moments[0] - mean) / moments[2]
        assert z.abs().max() < 4.5

    def lacking(cohort):
        pyro.sample("other", dist.Normal(0.0, 1.0))

    with pytest.raises(GuideError, match="does not sample"):
        pa.sample_individuals(linear_program, linear, TRUTH, guide=lacking)
