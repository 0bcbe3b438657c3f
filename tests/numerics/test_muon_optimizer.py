import pytest
import torch

from pyro_amortized.numerics.muon_optimizer import Muon, orthogonalize
from pyro_amortized.training.optimizers import make_optimizers
from pyro_amortized.training.options import TrainingOptions


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (3, 8, 8), (1, 6, 4)])
def test_singular_values_are_near_one_and_directions_are_kept(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    orthogonal = orthogonalize(x)
    assert orthogonal.shape == x.shape
    values = torch.linalg.svdvals(orthogonal)
    assert ((values > 0.5) & (values < 1.3)).all()
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    inner = left.transpose(-1, -2) @ orthogonal @ right.transpose(-1, -2)
    off = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-3


def test_size_of_an_update_and_weight_decay():
    weight = torch.nn.Parameter(torch.ones(32, 16))
    weight.grad = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.1).step()
    update = (1 - weight.detach()) / 0.1
    assert update.pow(2).mean().sqrt() == pytest.approx(0.2, rel=0.2)  # as one of Adam
    still = torch.nn.Parameter(torch.ones(32, 16))
    still.grad = torch.zeros(32, 16)
    Muon([still], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(still.detach(), torch.full((32, 16), 0.95))


def test_equal_shapes_together_or_alone_give_the_same():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(8, 6, generator=generator) for _ in range(3)]
    gradients = [torch.randn(8, 6, generator=generator) for _ in range(3)]
    together = [torch.nn.Parameter(x.clone()) for x in start]
    alone = [torch.nn.Parameter(x.clone()) for x in start]
    for weights, groups in ((together, [together]), (alone, [[w] for w in alone])):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        for group in groups:
            Muon(group, lr=0.1).step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("size", [4, 15, 16])
def test_networks_too_small_for_it_are_left_to_adam(size):
    network = torch.nn.Linear(size, size)
    before = [p.detach().clone() for p in network.parameters()]
    optimizers = make_optimizers(network, TrainingOptions().resolved(None))
    assert list(optimizers) == (["adam"] if size < 16 else ["muon", "adam"])
    network(torch.ones(2, size)).square().sum().backward()
    for optimizer in optimizers.values():
        optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True)]
    assert all(moved)
