import torch

from pyro_amortized.population.following.fixed_draws import replace_impossible_draws


def test_impossible_draws_are_replaced_by_the_best_of_the_individual():
    draws = torch.arange(12.0).reshape(3, 2, 2)
    log_weights = torch.tensor([[0.0, -torch.inf], [1.0, -1.0], [-torch.inf, -2.0]])
    impossible = log_weights == -torch.inf
    result = replace_impossible_draws(draws, log_weights, impossible)
    assert torch.equal(result[2, 0], draws[1, 0])
    assert torch.equal(result[0, 1], draws[1, 1])
    assert torch.equal(result[~impossible], draws[~impossible])
    assert torch.equal(draws, torch.arange(12.0).reshape(3, 2, 2))
    assert replace_impossible_draws(draws, log_weights, torch.zeros_like(impossible)) is draws
