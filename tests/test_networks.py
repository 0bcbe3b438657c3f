import pytest
import torch

from pyro_amortized.networks import DeepSet

from .contracts import check_summary


@pytest.mark.parametrize("num_static", [0, 3])
def test_deep_set_keeps_the_contract(num_static):
    torch.manual_seed(0)
    check_summary(DeepSet(5, num_static), 5, num_static)
