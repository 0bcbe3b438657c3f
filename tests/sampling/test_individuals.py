import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedWarning, GuideError, ModelError
from pyro_amortized.sampling import nuts_chain, unreliable_individuals, weight_quality
from tests.exact import TRUTH, exact_log_marginal, exact_posterior, linear_cohort

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def test_means_and_sds_are_exact(linear, linear_guide):
    individuals = pa.sample_individuals(
        linear_guide.model, linear, TRUTH, guide=linear_guide, num_draws=2000, seed=1
    )
    mean, sd, mean_error, sd_error = individuals.moments()
    exact_mean, covariance = exact_posterior(linear, TRUTH)
    exact_sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    z = torch.stack([(mean - exact_mean) / mean_error, (sd - exact_sd) / sd_error])
    assert z.abs().max() < 4.2  # the largest of 160
    assert 0.6 < float(z.pow(2).mean()) < 1.5


def test_nothing_recorded_gives_the_population(linear_guide):
    cohort = linear_cohort(3).with_observed({"y": torch.zeros(3, 8, dtype=torch.bool)})
    individuals = pa.sample_individuals(
        linear_guide.model, cohort, TRUTH, guide=linear_guide, num_draws=4000
    )
    mean, sd, mean_error, _ = individuals.moments()
    assert ((mean - TRUTH["mean"]).abs() < 4 * mean_error).all()
    assert torch.allclose(sd, TRUTH["omega"].expand(3, 2), rtol=0.1)
    assert torch.allclose(individuals.estimate.log_mean, torch.zeros(3).double(), atol=0.1)


def test_draws_and_predictions_have_their_shapes(linear, linear_guide):
    individuals = pa.sample_individuals(
        linear_guide.model, linear, TRUTH, guide=linear_guide, num_draws=300
    )
    assert individuals.draws(20)["phi"].shape == (20, 40, 2)
    predicted = individuals.predict(50, seed=1)["y"]
    assert predicted.shape == (50, 40, 8)
    seen = linear["y"].observed
    low, high = predicted.quantile(0.05, 0)[seen], predicted.quantile(0.95, 0)[seen]
    inside = (linear["y"].values[seen] > low) & (linear["y"].values[seen] < high)
    assert 0.8 < float(inside.double().mean()) < 1.0
    assert torch.equal(individuals.resampled(5, seed=2), individuals.resampled(5, seed=2))


def test_individuals_without_good_draws_are_named(linear_guide):
    """A residual error of almost nothing: no draw fits, and the result says so."""
    too_small = dict(TRUTH, sigma=torch.tensor(1e-7, dtype=torch.float64))
    with pytest.warns(AmortizedWarning, match="unreliable"):
        individuals = pa.sample_individuals(
            linear_guide.model,
            linear_cohort(10),
            too_small,
            guide=linear_guide,
            num_draws=100,
            max_chains=0,
        )
    assert individuals.log_weights.shape == (100, 10)
    assert (individuals.estimate.pareto_k > 0.7).any()


@pytest.mark.slow
def test_the_worst_individuals_get_a_chain_of_nuts(linear, linear_guide, monkeypatch):
    strict = weight_quality.ReliabilitySettings(min_ess=1e6, min_efficiency=1.0)
    monkeypatch.setattr(weight_quality, "RELIABILITY", strict)
    monkeypatch.setattr(nuts_chain, "CHAIN", nuts_chain.ChainSettings(30, 60))
    chains = []

    def counted(*arguments):
        chains.append(nuts_chain.nuts_draws(*arguments))
        return chains[-1]

    monkeypatch.setattr(unreliable_individuals, "nuts_draws", counted)
    state = torch.get_rng_state()
    with pytest.warns(AmortizedWarning, match="unreliable"):
        individuals = pa.sample_individuals(
            linear_guide.model, linear, TRUTH, guide=linear_guide, num_draws=300, max_chains=2
        )
    assert torch.equal(torch.get_rng_state(), state)
    assert [chain is not None for chain in chains] == [True, True]
    exact = exact_log_marginal(linear, TRUTH)
    off = (individuals.estimate.log_mean - exact) / individuals.estimate.mc_error
    assert off.abs().max() < 5


@pytest.mark.filterwarnings("ignore:The weights of")  # of a guide after one step
def test_a_mask_that_the_training_data_did_not_need(linear_guide):
    """Complete training data hide a forgotten mask; the first cohort with holes must not."""

    def forgotten(cohort):
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
            y = cohort["y"]
            distribution = dist.Normal(level[..., None] + 0 * y.times, sigma[..., None]).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    holes = linear_cohort(8)
    times = holes["y"].times
    complete = pa.Cohort({"y": pa.Series(times, torch.ones_like(times))})
    options = pa.TrainingOptions(max_epochs=1)
    guide = pa.train(forgotten, complete, num_simulations=300, options=options, progress=False)
    population = {"sigma": torch.tensor(0.5)}
    pa.sample_individuals(
        guide.model, complete, population, guide=guide, num_draws=50, refine=False
    )
    for use in (
        lambda: pa.sample_individuals(guide.model, holes, population, guide=guide),
        lambda: pa.marginal_likelihood(forgotten, holes, population, guide=guide),
        lambda: pa.fit_population(forgotten, holes, guide=guide),
    ):
        with pytest.raises(ModelError, match="not recorded enter the density"):
            use()


def test_too_few_draws(linear, linear_guide):
    with pytest.raises(GuideError, match="num_draws"):
        pa.sample_individuals(linear_guide.model, linear, TRUTH, guide=linear_guide, num_draws=5)
