"""Sharpened guides of posteriors with two modes, against quadrature."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.guide import newton_posterior
from tests.small import NETWORKS

pytestmark = pytest.mark.slow

POPULATION = {
    "mean": torch.tensor(0.3, dtype=torch.float64),
    "sd": torch.tensor(1.0, dtype=torch.float64),
}
NOISE, NUM = 0.2, 12


def squares(cohort):
    """The sign of x is known from its population alone."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    sd = pyro.sample("sd", dist.LogNormal(0.0, 0.3))
    with pyro.plate("individual", len(cohort)):
        x = pyro.sample("x", dist.Normal(mean, sd))
        y = cohort["y"]
        law = dist.Normal((x**2)[..., None] + 0 * y.times, NOISE)
        pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def cohort():
    x = torch.linspace(-1.5, 1.5, NUM, dtype=torch.float64)
    noise = torch.randn(NUM, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = x[:, None] ** 2 + NOISE * noise
    return pa.Cohort({"y": pa.Series(torch.arange(4.0).double().expand(NUM, 4), values)})


@pytest.fixture(scope="module")
def sharp(cohort):
    options = pa.TrainingOptions(max_epochs=2, batch_size=256)
    settings = {"options": options, "networks": NETWORKS, "progress": False}
    first = pa.train(squares, cohort, num_simulations=2000, seed=1, **settings)
    options = pa.TrainingOptions(max_epochs=4, batch_size=256)
    return pa.sharpen(first, cohort, num_simulations=3000, seed=1, options=options, progress=False)


def by_quadrature(cohort):
    """Log p(y_i | Psi) and the probability that x is positive, shape ``(individual,)``."""
    x = torch.linspace(-6, 6, 24001, dtype=torch.float64)
    prior = dist.Normal(POPULATION["mean"], POPULATION["sd"]).log_prob(x)
    data = dist.Normal(x[:, None, None] ** 2, NOISE).log_prob(cohort["y"].values).sum(-1)
    joint = prior[:, None] + data
    total = joint.logsumexp(0)
    positive = (joint - total).exp()[x > 0].sum(0)
    return total + math.log(12 / 24000), positive


@pytest.mark.filterwarnings("ignore:The weights of")  # one individual whose modes nearly touch
def test_both_modes_have_their_share(cohort, sharp):
    expected, positive = by_quadrature(cohort)
    drawn = pa.sample_individuals(
        squares, cohort, POPULATION, guide=sharp, num_draws=2000, seed=2, refine=False
    )
    estimate = drawn.estimate
    assert (estimate.ess > 1000).all()
    assert ((estimate.log_mean - expected).abs() < 4.5 * estimate.mc_error + 1e-6).all()
    share = (drawn.weights * (drawn.unconstrained[..., 0] > 0)).sum(0)
    assert (
        (share - positive).abs() < 4.5 * (positive * (1 - positive) / estimate.ess).sqrt()
    ).all()
    assert float((positive - 0.5).abs().min()) < 0.3


def test_the_density_of_two_modes_is_normalised(cohort, sharp):
    """By quadrature, and that of the draws is that of their places, for any shape of the batch."""
    posterior = sharp.individual_posterior(cohort, POPULATION)
    assert int(posterior.modes.groups.counts.max()) == 2
    x = torch.linspace(-6, 6, 24001, dtype=torch.float64)[:, None, None].expand(-1, NUM, 1)
    assert torch.allclose(
        posterior.log_prob(x).exp().sum(0) * 12 / 24000,
        torch.ones(NUM, dtype=torch.float64),
        atol=2e-2,
    )
    torch.manual_seed(0)
    for shape in ((NUM,), (3, NUM // 3), (NUM, 1)):
        reshaped = posterior.reshape(torch.Size(shape))
        draws, log_prob = reshaped.sample_with_log_prob((50,))
        assert torch.allclose(reshaped.log_prob(draws), log_prob)
    rows = torch.tensor([7, 2, 7])
    points = torch.randn(NUM, 1, dtype=torch.float64)
    base = posterior.log_prob(points)
    assert torch.allclose(posterior.take(rows).log_prob(points[rows]), base[rows])
    assert torch.allclose(posterior.expand((2, NUM)).log_prob(points), base.expand(2, NUM))


@pytest.mark.parametrize("num_starts", [1, 32])
def test_a_large_cohort_gets_starts_from_the_population_where_they_find_more(
    cohort, sharp, monkeypatch, num_starts
):
    """From one start of the networks there is one mode, and the pilot of four individuals finds
    another one.
    """
    starts = newton_posterior.StartNumbers(num_starts, min(num_starts, 4), 1.0)
    settings = replace(newton_posterior.SETTINGS, num_pilot=4, first_starts=starts)
    monkeypatch.setattr(newton_posterior, "SETTINGS", settings)
    counts = sharp.individual_posterior(cohort, POPULATION).modes.groups.counts
    assert int((counts == 2).sum()) >= NUM // 2
