import pytest
import torch
from torch import nn

from pyro_amortized.errors import GuideError
from pyro_amortized.networks import (
    Unmasked,
)


def test_masked_tokens_are_refused():
    network = Unmasked(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), 4)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    with pytest.raises(GuideError, match="Individual 1 has 1 masked tokens"):
        network(torch.ones(2, 3, 2), mask, torch.ones(2, 0))
