import torch

from pyro_amortized.numerics.small_sums import quadratic_form, sum_last


def values(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_sums_are_those_of_torch():
    x = values(7, 5, 3)
    assert torch.allclose(sum_last(x), x.sum(-1))
    assert sum_last(values(4, 0)).tolist() == [0.0] * 4
    assert sum_last(torch.tensor([[1.0, -torch.inf], [torch.nan, 1.0]]))[0] == -torch.inf


def test_derivatives_of_the_quadratic_form():
    """First and second derivatives are those of the formula, also in a composition."""
    gradient, half = values(6, 4, 3), values(6, 4, 3, 3)
    hessian = half + half.transpose(-1, -2)

    def plain(x):
        return (gradient * x).sum(-1) + 0.5 * torch.einsum("abi,abij,abj->ab", x, hessian, x)

    def total(form):
        return lambda z: (form(z.sin().expand(6, 4, 3)) * 0.1).exp().sum()

    z = values(3)
    fast, expected = total(lambda x: quadratic_form(gradient, hessian, x)), total(plain)
    for derivative in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        assert torch.allclose(derivative(fast, z), derivative(expected, z))
    assert torch.allclose(fast(z), expected(z))
