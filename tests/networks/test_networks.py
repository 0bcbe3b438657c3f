from functools import partial

import pytest
import torch
from torch import nn

from pyro_amortized.errors import GuideError
from pyro_amortized.networks import (
    AttentionNetwork,
    ConvolutionalNetwork,
    DeepSet,
    GridNetwork,
    RecurrentNetwork,
    TokenLayout,
    Unmasked,
)
from tests.contracts import check_summary

SETS = [DeepSet, AttentionNetwork, partial(AttentionNetwork, width=16, num_blocks=1, num_heads=2)]
ORDERED = [
    RecurrentNetwork,
    partial(RecurrentNetwork, width=16, num_layers=2, cell=nn.LSTM),
    ConvolutionalNetwork,
    partial(GridNetwork, width=16),
]


@pytest.mark.parametrize("num_static", [0, 3])
@pytest.mark.parametrize("network", SETS + ORDERED)
def test_summary_networks_keep_the_contract(network, num_static):
    torch.manual_seed(0)
    places = 4 if getattr(network, "func", network) is GridNetwork else 0
    layout = TokenLayout(5, num_static, places, 5, has_more=True)
    check_summary(network(layout), 5, num_static, ordered=network in ORDERED)


def test_recurrent_networks_leave_out_what_is_masked():
    """A hole in the sequence is no token at all, wherever it is."""
    torch.manual_seed(0)
    network = RecurrentNetwork(TokenLayout(3, 0))
    tokens, mask = torch.randn(1, 5, 3), torch.tensor([[True, False, True, False, True]])
    short = network(tokens[:, ::2], mask[:, ::2], torch.zeros(1, 0))
    assert torch.allclose(network(tokens, mask, torch.zeros(1, 0)), short, atol=1e-6)


def test_order_matters_where_it_should():
    torch.manual_seed(0)
    tokens, mask = torch.randn(1, 5, 3), torch.ones(1, 5, dtype=torch.bool)
    for kind in (RecurrentNetwork, ConvolutionalNetwork):
        network = kind(TokenLayout(3, 0))
        turned = network(tokens.flip(1), mask, torch.zeros(1, 0))
        assert not torch.allclose(network(tokens, mask, torch.zeros(1, 0)), turned, atol=1e-4)


def test_networks_that_cannot_honour_a_mask_refuse_it():
    network = Unmasked(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), 4)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    with pytest.raises(GuideError, match="Individual 1 has 1 masked tokens"):
        network(torch.ones(2, 3, 2), mask, torch.ones(2, 0))
    with pytest.raises(GuideError, match="fixed places"):
        GridNetwork(TokenLayout(3, 0))
