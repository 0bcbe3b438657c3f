"""The contract of all summary networks."""

from functools import partial

import pytest
import torch
from torch import nn

from pyro_amortized.networks import (
    AttentionNetwork,
    ConvolutionalNetwork,
    DeepSet,
    GridNetwork,
    RecurrentNetwork,
    TokenLayout,
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
