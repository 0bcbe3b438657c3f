import math

import pytest
import torch
from pyro.ops.stats import fit_generalized_pareto

from pyro_amortized.sampling.importance_weights import (
    generalized_pareto_shape,
    importance_estimate,
    log_mean_difference,
    normalized_weights,
    resample,
    weighted_moments,
)


def weights_of_normals(num_draws, num, sd, seed=0):
    """Target N(0, 1), proposal N(0, sd): the mean weight is 1."""
    generator = torch.Generator().manual_seed(seed)
    x = sd * torch.randn(num_draws, num, generator=generator, dtype=torch.float64)
    target, proposal = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, sd)
    return x, target.log_prob(x) - proposal.log_prob(x)


def test_log_mean_and_its_error_are_honest():
    _, log_weights = weights_of_normals(400, 500, 1.5)
    estimate = importance_estimate(log_weights)
    z = estimate.log_mean / estimate.mc_error
    assert abs(float(z.mean())) < 0.2
    assert 0.8 < float(z.std()) < 1.25
    efficiency = 1 / (1.5**2 / math.sqrt(2 * 1.5**2 - 1))  # E[w]^2 / E[w^2]
    assert float(estimate.ess.mean()) / 400 == pytest.approx(efficiency, rel=0.03)


def test_pareto_k_tells_good_from_bad():
    wide, narrow = weights_of_normals(2000, 20, 1.3)[1], weights_of_normals(2000, 20, 0.4)[1]
    assert (importance_estimate(wide).pareto_k < 0.5).all()
    assert (importance_estimate(narrow).pareto_k > 0.6).float().mean() > 0.7


def test_pareto_k_is_the_shape_of_a_pareto_tail():
    generator = torch.Generator().manual_seed(0)
    for k in (0.3, 0.9):
        uniform = torch.rand(20_000, 10, generator=generator, dtype=torch.float64)
        pareto_k = importance_estimate(-k * uniform.log()).pareto_k
        assert float(pareto_k.mean()) == pytest.approx(k, abs=0.1)


def test_nothing_is_dropped():
    log_weights = torch.zeros(100, 4, dtype=torch.float64)
    log_weights[:50, 1] = -math.inf
    log_weights[:50, 2] = math.nan
    log_weights[:, 3] = -math.inf
    estimate = importance_estimate(log_weights)
    half = math.log(0.5)
    assert estimate.log_mean.tolist() == pytest.approx([0.0, half, half, -math.inf])
    assert estimate.ess.tolist() == pytest.approx([100, 50, 50, 0])
    assert estimate.pareto_k[3] == math.inf
    assert estimate.mc_error[3] == math.inf


def test_equal_and_lonely_weights():
    log_weights = torch.full((200, 2), -50.0, dtype=torch.float64)
    log_weights[3, 1] = 900.0
    assert importance_estimate(log_weights).pareto_k.tolist() == [-math.inf, math.inf]


def test_weighted_moments_and_their_errors():
    zs = []
    for seed in range(200):
        x, log_weights = weights_of_normals(300, 1, 1.4, seed)
        mean, sd, mean_error, sd_error = weighted_moments(
            x.unsqueeze(-1), normalized_weights(log_weights)
        )
        zs.append([float(mean / mean_error), float((sd - 1) / sd_error)])
    z = torch.tensor(zs)
    assert (z.mean(0).abs() < 0.35).all()
    assert ((z.std(0) > 0.8) & (z.std(0) < 1.25)).all()


def test_resampling_follows_the_weights_as_closely_as_it_can():
    weights = torch.tensor([[0.1, 1.0], [0.9, 0.0]], dtype=torch.float64)
    index = resample(weights, 20_000, torch.Generator().manual_seed(0))
    assert abs(int((index[:, 0] == 1).sum()) - 18_000) <= 1
    assert (index[:, 1] == 0).all()
    assert abs(int((index[:10_000, 0] == 1).sum()) - 9_000) < 150  # in random order
    single = resample(weights[:, :1].expand(-1, 20_000), 1, torch.Generator().manual_seed(1))
    assert float((single == 1).double().mean()) == pytest.approx(0.9, abs=0.01)


def test_all_columns_at_once_agree_with_pyro_column_by_column():
    generator = torch.Generator().manual_seed(3)
    shapes = torch.tensor([-0.3, 0.1, 0.6, 1.4]).double()
    uniform = torch.rand(200, 4, generator=generator, dtype=torch.float64)
    excess = (((1 - uniform) ** -shapes - 1) / shapes).sort(0).values
    expected = [fit_generalized_pareto(column)[0] for column in excess.unbind(1)]
    assert torch.allclose(generalized_pareto_shape(excess), torch.tensor(expected).double())


def test_error_of_a_difference_is_its_standard_deviation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2000, generator=generator, dtype=torch.float64)
    one, two = 0.3 * x, 0.4 * x + 0.05 * x**2
    difference, error = log_mean_difference(one, two)
    exact = 0.3**2 / 2 - (0.4**2 / (2 * 0.9) - 0.5 * torch.tensor(0.9).log())
    z = (difference - exact) / error
    assert abs(float(z.std()) - 1) < 0.1
    assert abs(float(z.mean())) < 0.2
