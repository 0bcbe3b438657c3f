"""Newton steps without derivatives, and guides that they sharpen."""

import pickle

import pytest
import torch
from pyro.infer import Importance, Predictive
from pyro.infer.importance import vectorized_importance_weights

import pyro_amortized as pa
from pyro_amortized.guide.newton_posterior import SharpenedPosterior
from pyro_amortized.guide.sharpened_distribution import MIXTURE
from tests.exact import TRUTH, exact_posterior, linear_program
from tests.small import train

pytestmark = pytest.mark.slow

OPTIONS = pa.TrainingOptions(max_epochs=4, batch_size=256)


@pytest.fixture(scope="module")
def trained(linear):
    options = pa.TrainingOptions(max_epochs=2, batch_size=256)
    return train(linear, num_simulations=3000, options=options)


@pytest.fixture(scope="module")
def sharp(linear, trained):
    return pa.sharpen(
        trained, linear, num_simulations=6000, seed=1, options=OPTIONS, progress=False
    )


def test_a_poor_guide_becomes_nearly_exact(linear, trained, sharp):
    exact = torch.distributions.MultivariateNormal(*exact_posterior(linear, TRUTH))
    torch.manual_seed(0)
    draws = exact.sample((500,))
    divergences = [
        float(
            (exact.log_prob(draws) - g.individual_posterior(linear, TRUTH).log_prob(draws)).mean()
        )
        for g in (trained, sharp)
    ]
    assert divergences[0] > 0.2
    assert divergences[1] < 0.05
    assert "sharpened with" in sharp.history.advice


def test_the_density_belongs_to_the_draws(linear, sharp):
    """E_r[q / r] = 1 under a wide normal r; take, reshape and expand change no density."""
    posterior = sharp.individual_posterior(linear[[0]], TRUTH)
    torch.manual_seed(0)
    draws = posterior.rsample((4000,))[:, 0]
    wide = torch.distributions.MultivariateNormal(draws.mean(0), 2.0 * torch.cov(draws.T))
    points = wide.sample((40_000,))
    ratio = (posterior.log_prob(points.unsqueeze(1))[:, 0] - wide.log_prob(points)).exp()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=4 * float(ratio.std()) / 200 + 2e-3)
    joint = sharp.individual_posterior(linear, TRUTH)
    n = len(linear)
    points = torch.randn(n, 2, dtype=torch.float64)
    base = joint.log_prob(points)
    rows = torch.tensor([3, 1])
    assert torch.allclose(joint.take(rows).log_prob(points[rows]), base[rows])
    assert torch.allclose(joint.reshape((n, 1)).log_prob(points.unsqueeze(1))[:, 0], base)
    assert torch.allclose(joint.expand((3, n)).log_prob(points), base.expand(3, n))
    for shape, num in (((2, n // 2, 1), 400), ((n,), 1), ((n,), 400)):
        drawn, log_prob = joint.reshape(torch.Size(shape)).sample_with_log_prob((num,))
        assert torch.allclose(joint.reshape(torch.Size(shape)).log_prob(drawn), log_prob)
    log_share = torch.tensor(MIXTURE.share_of_first).log()
    assert (base >= joint.first.log_prob(points) + log_share).all()


def test_a_sharpened_guide_is_a_guide(linear, sharp):
    """Under Importance, Predictive, sample_individuals and pickle, as any other."""
    torch.manual_seed(0)
    drawn = Predictive(linear_program, guide=sharp, num_samples=3)(linear)
    assert drawn["phi"].shape[-2:] == (len(linear), 2)
    posterior = Importance(linear_program, guide=sharp, num_samples=3).run(linear)
    assert torch.tensor(posterior.log_weights).isfinite().all()
    weights, _, _ = vectorized_importance_weights(
        linear_program, sharp, linear, num_samples=4, max_plate_nesting=1
    )
    assert weights.shape == (4,)
    assert weights.isfinite().all()
    fit = pa.fit_population(linear_program, linear, guide=sharp, num_draws=500)
    assert fit.converged, fit.message
    individuals = pa.sample_individuals(
        sharp.model, linear, TRUTH, guide=sharp, num_draws=200, seed=1
    )
    assert (individuals.estimate.ess > 50).all()
    copied = pickle.loads(pickle.dumps(sharp))
    points = torch.zeros(len(linear), 2, dtype=torch.float64)
    posteriors = [g.individual_posterior(linear, TRUTH) for g in (sharp, copied)]
    assert torch.equal(posteriors[0].log_prob(points), posteriors[1].log_prob(points))


def test_a_sharpened_guide_is_saved_and_loaded(linear, sharp, tmp_path):
    sharp.save(tmp_path)
    loaded = pa.load_guide(tmp_path, linear_program, linear)
    assert isinstance(loaded.posterior, SharpenedPosterior)
    points = torch.zeros(len(linear), 2, dtype=torch.float64)
    posteriors = [g.individual_posterior(linear, TRUTH) for g in (sharp, loaded)]
    assert torch.equal(posteriors[0].log_prob(points), posteriors[1].log_prob(points))


def test_a_seed_determines_it_and_networks_stay_as_they_were(linear, trained, sharp):
    repeated = pa.sharpen(
        sharp, linear, num_simulations=6000, seed=1, options=OPTIONS, progress=False
    )
    for name, x in sharp.posterior.state_dict().items():
        assert torch.equal(x, repeated.posterior.state_dict()[name])
    assert not isinstance(trained.posterior, SharpenedPosterior)
