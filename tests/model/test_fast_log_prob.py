"""The fast density of normal observations is that of the distribution itself."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_amortized.model.fast_log_prob import _normal, log_prob_of


def values(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


MASK = values(4, 5) > 0
DISTRIBUTIONS = {
    "plain": lambda f, s: dist.Normal(f, s[..., None]).to_event(1),
    "masked": lambda f, s: dist.Normal(f, s[..., None]).mask(MASK).to_event(1),
    "nothing": lambda f, s: dist.Normal(f, s[..., None]).mask(False).to_event(1),
    "one sigma": lambda f, s: dist.Normal(f, s[0]).mask(MASK).to_event(1),
    "plate of draws": lambda f, s: dist.Normal(f.expand(3, 4, 5), s[..., None]).to_event(1),
    "sigma per time": lambda f, s: dist.Normal(f, s[:, None] * f.abs()).mask(MASK).to_event(1),
    "two events": lambda f, s: dist.Normal(f, s[..., None]).to_event(2),
    "mask outside": lambda f, s: dist.Normal(f, s[..., None]).to_event(1).mask(MASK[:, 0]),
    "no event": lambda f, s: dist.Normal(f, s[..., None]).mask(MASK),
    "sd per parameter": lambda f, s: dist.Normal(
        f, s.mean() * torch.arange(1.0, 6.0).double()
    ).to_event(1),
    "log-normal": lambda f, s: dist.LogNormal(f, s[..., None]).to_event(1),
    "student": lambda f, s: dist.StudentT(4.0, f, s[..., None]).mask(MASK).to_event(1),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_value_and_gradient_are_those_of_the_distribution(name):
    y = values(4, 5).abs() + 0.1

    def both(density):
        mean = values(4, 5).requires_grad_()
        sigma = (values(4).abs() + 0.5).requires_grad_()
        distribution = DISTRIBUTIONS[name](mean, sigma)
        log_prob = density(distribution, y)
        if not log_prob.requires_grad:  # nothing is observed
            return log_prob, []
        slopes = torch.autograd.grad(log_prob.sum(), (mean, sigma), allow_unused=True)
        return log_prob, [x for x in slopes if x is not None]

    with pyro.validation_enabled(False):  # as in the library's own runs
        fast, slopes = both(log_prob_of)
        expected, other = both(lambda distribution, y: distribution.log_prob(y))
    assert fast.shape == expected.shape
    assert torch.allclose(fast, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(slopes, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_what_is_masked_cannot_matter():
    y = values(4, 5).masked_fill(~MASK, torch.nan)
    with pyro.validation_enabled(False):
        distribution = dist.Normal(values(4, 5), torch.ones(()).double()).mask(MASK).to_event(1)
        assert _normal(distribution)[0] is not None
        assert log_prob_of(distribution, y).isfinite().all()


def test_values_that_are_no_category_have_no_density():
    value = torch.tensor([[0.0, 1.0, 1.0], [0.5, 2.0, -1.0]])
    mask = torch.tensor([[True, False, True], [False, True, True]])
    with pyro.validation_enabled(False):
        distribution = dist.Categorical(torch.full((2, 3, 2), 0.5)).mask(mask).to_event(1)
        found = log_prob_of(distribution, value)
        assert torch.allclose(found[0].exp(), torch.tensor(0.25))
        assert found[1] == -torch.inf
        hidden = dist.Categorical(torch.full((2, 3, 2), 0.5)).mask(value != value).to_event(1)
        assert log_prob_of(hidden, value).tolist() == [0.0, 0.0]
        assert log_prob_of(dist.Categorical(torch.ones(2)), torch.tensor(0.5)) == -torch.inf


def test_cut_points_that_decrease_have_no_density():
    cuts = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    with pyro.validation_enabled(False):
        outer = log_prob_of(dist.OrderedLogistic(torch.zeros(2), cuts), torch.zeros(2))
    assert torch.allclose(outer[0].exp(), torch.sigmoid(torch.tensor(-1.0)))
    assert outer[1].isnan()
