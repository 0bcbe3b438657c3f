import torch

from pyro_amortized.networks import (
    ConvolutionalNetwork,
    RecurrentNetwork,
    TokenLayout,
)


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
