"""The second round: a guide trained further around a fit."""

import warnings
from dataclasses import replace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import TrainingError
from pyro_amortized.population.results import retraining as retrain
from tests.exact import TRUTH, exact_fit, linear_cohort, linear_program
from tests.programs import growth_cohort, several_supports
from tests.small import QUICK

pytestmark = pytest.mark.usefixtures("rough_training_distributions")

FAR = TRUTH | {"mean": torch.tensor([12.0, 0.5], dtype=torch.float64)}


@pytest.fixture(scope="module")
def far():
    """A cohort far outside the guide's training."""
    return linear_cohort(truth=FAR)


@pytest.mark.slow
def test_a_fit_at_the_edge_trains_again_with_a_warning(far, linear_guide, monkeypatch):
    settings = replace(retrain.RETRAINING, num_simulations=4000, num_epochs=6)
    monkeypatch.setattr(retrain, "RETRAINING", settings)
    unusual = pytest.warns(pa.AmortizedWarning, match="unusual under the prior of the model")
    again = pytest.warns(pa.AmortizedWarning, match="phi\\[0\\] of 100% of the individuals")
    with unusual, again:
        fit = pa.fit_population(linear_program, far, guide=linear_guide, num_draws=500, seed=1)
    assert fit.guide is not linear_guide
    assert "trained again" in fit.message
    vector, _, covariance = exact_fit(far, FAR)
    assert ((fit.vector - vector) / covariance.diagonal().sqrt()).abs().max() < 0.15

    def efficiency(guide):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pa.AmortizedWarning)
            return (
                pa.sample_individuals(
                    guide.model, far, fit.estimates, guide=guide, num_draws=400, refine=False
                ).estimate.ess.median()
                / 400
            )

    assert efficiency(linear_guide) < 0.1
    assert efficiency(fit.guide) > 0.4
    assert retrain.reasons_to_retrain(fit) == []


@pytest.mark.slow
def test_a_second_round_may_be_asked_for_or_refused(far, linear, linear_guide, fit, monkeypatch):
    settings = replace(retrain.RETRAINING, num_simulations=1000, num_epochs=2)
    monkeypatch.setattr(retrain, "RETRAINING", settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        kept = pa.fit_population(
            linear_program, far, guide=linear_guide, num_draws=200, retrain=False, seed=1
        )
    assert kept.guide is linear_guide
    assert "phi[0]" in retrain.reasons_to_retrain(kept)[0]
    assert retrain.reasons_to_retrain(fit) == []
    retrained = [
        pa.fit_population(
            linear_program, linear, guide=linear_guide, num_draws=200, retrain=True, seed=1
        )
        for _ in range(2)
    ]
    assert retrained[0].guide is not linear_guide
    assert torch.equal(retrained[0].vector, retrained[1].vector)
    training = retrained[0].guide.training_distribution.individual.normal
    assert (training.loc - fit.individuals.moments()[0].mean(0)).abs().max() < 0.2


def test_a_warm_start_goes_on_from_the_networks(linear, linear_guide):
    options = pa.TrainingOptions(max_epochs=1, batch_size=256, learning_rate=1e-7)
    guide = pa.train(
        linear_program,
        linear,
        num_simulations=500,
        options=options,
        warm_start=linear_guide,
        progress=False,
    )
    population = linear_guide.structure.initial_population()
    mean = [
        g.individual_posterior(linear, population).rsample(torch.Size([2000])).mean(0)
        for g in (guide, linear_guide)
    ]
    assert (mean[0] - mean[1]).abs().max() < 0.2
    assert not any(p.requires_grad for p in linear_guide.posterior.parameters())
    with pytest.raises(TrainingError, match="warm start"):
        pa.train(
            several_supports,
            growth_cohort(10),
            num_simulations=500,
            options=QUICK,
            warm_start=linear_guide,
            progress=False,
        )
