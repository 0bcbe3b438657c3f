r"""The loss of a batch."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.encode import Encoded, Form, Tokens
from pyro_amortized.numerics.gaussians import Gaussians
from pyro_amortized.training.batches import Pairs
from pyro_amortized.training.objective import Loss


def test_half_precision_moves_the_loss_little():
    torch.manual_seed(0)
    encoder = Tokens().encoder(Form(("y",), (1,), (), has_doses=False))
    posterior = pa.Networks().build(encoder, 2, 0)
    tokens = torch.randn(200, 5, encoder.layout.num_features)
    encoded = Encoded(tokens, torch.rand(200, 5) > 0.2, torch.randn(200, encoder.num_static))
    priors = Gaussians(torch.zeros(200, 2), torch.eye(2).expand(200, 2, 2))
    pairs = Pairs(encoded, torch.randn(200, 2), torch.zeros(200, 0), priors)
    single, half = (float(Loss(posterior, kind)(pairs).detach()) for kind in (None, torch.bfloat16))
    assert half == pytest.approx(single, abs=0.02)
