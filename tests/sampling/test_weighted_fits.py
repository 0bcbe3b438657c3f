import torch

from pyro_amortized.sampling.weighted_fits import tempered_weights


def test_tempering_keeps_draws():
    log_weights = torch.zeros(1000, 1, dtype=torch.float64)
    log_weights[0] = 500.0
    log_weights[1:100] = torch.linspace(0, 60, 99).double().unsqueeze(-1)
    weights = tempered_weights(log_weights, 50.0)
    assert 1 / weights.pow(2).sum() >= 50
