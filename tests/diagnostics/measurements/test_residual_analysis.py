"""Residuals against closed forms; npde of the right model are standard normal."""

import pytest
import torch
from scipy.stats import kstest

from pyro_amortized.diagnostics import residuals
from pyro_amortized.diagnostics.measurements.prediction_errors import prediction_errors
from pyro_amortized.errors import CohortError
from tests.exact import TRUTH, exact_posterior


def test_predictions_and_residuals_against_closed_forms(fit, linear):
    r = residuals(fit, seed=1)
    mean, _ = exact_posterior(linear, fit.estimates)
    y = linear["y"]
    exact = mean[:, :1] + mean[:, 1:] * y.times
    sigma = fit.estimates["sigma"]
    assert (r.individual - exact[y.observed]).abs().max() < 0.25 * sigma
    assert torch.allclose(r.iwres, (r.observed - r.individual) / sigma)
    line = fit.estimates["mean"][0] + fit.estimates["mean"][1] * y.times
    assert (r.population - line[y.observed]).abs().max() < 0.3
    assert list(r.table().columns[:4]) == ["ID", "TIME", "DV", "CENS"]
    assert len(r.table()) == linear.num_observations
    assert not r.censored.any()


def test_npde_of_the_right_model_are_standard_normal():
    """On cohorts of the right model. The pd of one individual are correlated, its npde are not."""
    generator = torch.Generator().manual_seed(1)
    times = torch.linspace(0, 3, 6).double()

    def draw(num):
        phi = TRUTH["mean"] + TRUTH["omega"] * torch.randn(num, 2, generator=generator).double()
        noise = TRUTH["sigma"] * torch.randn(num, 6, generator=generator).double()
        return phi[:, :1] + phi[:, 1:] * times + noise

    values = draw(300)
    simulated = draw(300 * 500).reshape(500, 300, 6)
    seen = torch.ones(300, 6, dtype=torch.bool)
    share, npde = prediction_errors(values, seen, simulated, generator)
    assert kstest(npde.flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.corrcoef(npde.T).triu(1).abs().max() < 0.25
    assert torch.corrcoef(share.T)[4, 5] > 0.5


def test_npde_of_counts_are_standard_normal():
    generator = torch.Generator().manual_seed(1)

    def draw(num):
        rate = torch.randn(num, 1, generator=generator).double().mul(0.5).exp()
        return torch.poisson(rate.expand(-1, 4).contiguous(), generator=generator)

    seen = torch.ones(300, 4, dtype=torch.bool)
    simulated = draw(300 * 500).reshape(500, 300, 4)
    _, npde = prediction_errors(draw(300), seen, simulated, generator)
    assert kstest(npde.flatten().numpy(), "norm").pvalue > 1e-3


def test_series_that_are_not_there(fit):
    with pytest.raises(CohortError, match="cannot be shown"):
        residuals(fit, series="z")
