import pytest
import torch

from pyro_amortized.networks import DeepSet, GridNetwork

from .contracts import check_summary


@pytest.mark.parametrize("num_static", [0, 3])
def test_deep_set_keeps_the_contract(num_static):
    torch.manual_seed(0)
    check_summary(DeepSet(5, num_static), 5, num_static)


@pytest.mark.parametrize("num_static", [0, 3])
def test_grid_network_keeps_the_contract(num_static):
    torch.manual_seed(0)
    network = GridNetwork(5, num_static, num_places=4, num_values=5, has_more=True, width=16)
    check_summary(network, 5, num_static, ordered=True)
