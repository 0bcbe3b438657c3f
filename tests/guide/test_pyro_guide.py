import pytest
import torch

from pyro_amortized.errors import GuideError


@pytest.fixture(scope="module")
def placed(fit):
    """The guide with the fit's normal approximation as its population part."""
    return fit.guide.at(fit.vector, torch.linalg.cholesky(fit.covariance))


def test_draws_of_the_whole_posterior(placed, fit, linear):
    found = placed.sample_posterior(linear, num_samples=4000)
    assert {name: x.shape for name, x in found.items()} == {
        "mean": (4000, 2),
        "omega": (4000, 2),
        "sigma": (4000,),
        "phi": (4000, 40, 2),
    }
    se = fit.covariance.diagonal().sqrt()
    z = (found["mean"].mean(0) - fit.vector[:2]) / (se[:2] / 4000**0.5)
    assert z.abs().max() < 4.5
    assert torch.allclose(found["mean"].std(0), se[:2].to(found["mean"]), rtol=0.1)
    assert torch.allclose(found["sigma"].log().std(), se[4].to(found["sigma"]), rtol=0.1)
    assert found["phi"].std(0).min() > 0  # each draw has its own individuals


def test_quantiles(placed, fit, linear):
    """Of a normal part that is known exactly, and of the network's posterior, before correction."""
    levels = [0.025, 0.5, 0.975]
    found = placed.quantiles(levels, linear)
    assert found["phi"].shape == (3, 40, 2)
    assert (found["phi"].diff(dim=0) > 0).all()
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(levels))
    se = fit.covariance.diagonal().sqrt()
    expected = fit.vector[2:4] + z.unsqueeze(-1) * se[2:4]
    assert ((found["omega"].log() - expected).abs() < 0.2 * se[2:4]).all()
    # The network's posterior given what the individuals share, before correction.
    law = placed.individual_posterior(linear, fit.estimates)
    alone = law.rsample(torch.Size([4000])).quantile(torch.tensor(levels).double(), dim=0)
    width = alone[2] - alone[0]
    assert ((found["phi"] - alone).abs() / width).mean() < 0.05
    median = placed.median(linear)["phi"]
    assert ((found["phi"][1] - median).abs() / width).max() < 0.1


def test_what_cannot_be_asked_for(placed, linear):
    with pytest.raises(GuideError, match="between 0 and 1"):
        placed.quantiles([0.5, 1.5], linear)
    with pytest.raises(GuideError, match="at least 1"):
        placed.sample_posterior(linear, num_samples=0)
