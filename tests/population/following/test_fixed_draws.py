import torch

from pyro_amortized.population.following.fixed_draws import NEGLIGIBLE, without_negligible


def test_draws_that_contribute_nothing_are_replaced_by_the_best_of_the_individual():
    draws = torch.arange(12.0).reshape(3, 2, 2)
    log_weights = torch.tensor([[0.0, -torch.inf], [1.0, -1.0], [-NEGLIGIBLE, -2.0]])
    result, negligible = without_negligible(draws, log_weights)
    assert negligible.nonzero().tolist() == [[0, 1], [2, 0]]
    assert torch.equal(result[2, 0], draws[1, 0])
    assert torch.equal(result[0, 1], draws[1, 1])
    assert torch.equal(result[~negligible], draws[~negligible])
    assert torch.equal(draws, torch.arange(12.0).reshape(3, 2, 2))
    assert without_negligible(draws, torch.zeros(3, 2))[0] is draws
