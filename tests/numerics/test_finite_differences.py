import pytest
import torch

from pyro_amortized.numerics.finite_differences import (
    expansion,
    expansion_of_gradients,
    regressed_expansion,
)


def cubic(u, point, d):
    """A function of two parameters of a draw and of two others, with mixed derivatives that are
    linear in the draw.
    """
    a, b = (u + point[:d]).unbind(-1)
    c, e = point[d:]
    return a * b + 0.3 * a**2 * b + c * (a - 2 * b) + 0.5 * e * a**2 + c**2 * e - e**2


def test_mixed_derivatives_by_regression_are_those_of_every_draw():
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(200, 3, 2, generator=generator, dtype=torch.float64)
    weights = torch.full((200, 3), 1 / 200, dtype=torch.float64)
    steps = torch.full((4,), 1e-2, dtype=torch.float64)
    value = cubic(draws, torch.zeros(4).double(), 2)
    value[0, 0] = -torch.inf

    def function(points):
        return [cubic(draws, x, 2) for x in points]

    gradient, hessian = regressed_expansion(function, steps, value, draws, weights)
    expected = expansion(function, steps, value)
    assert torch.allclose(gradient, expected[0], atol=1e-6)
    assert torch.allclose(hessian, expected[1], atol=1e-4)
    assert not hessian[0, 0].any()


def test_differences_of_gradients_are_those_of_values():
    draws = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    steps = torch.tensor([1e-2, 2e-2, 1e-2, 1e-2], dtype=torch.float64)

    def with_gradient(point):
        u = draws.clone().requires_grad_()
        value = cubic(u, point, 2)
        return value.detach(), torch.autograd.grad(value.sum(), u)[0]

    value = cubic(draws, torch.zeros(4).double(), 2)
    value[0, 0] = torch.nan
    found = expansion_of_gradients(lambda x: [with_gradient(y) for y in x], steps, value)
    expected = expansion(lambda x: [cubic(draws, y, 2) for y in x], steps, value)
    assert torch.allclose(found[0], expected[0], atol=1e-3)
    assert torch.allclose(found[1], expected[1], atol=1e-6)
    assert not found[0][0, 0].any()
    assert not found[1][0, 0].any()


def test_few_draws_give_one_mixed_derivative_for_all():
    draws = torch.randn(9, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.full((9, 1), 1 / 9, dtype=torch.float64)
    steps = torch.full((2,), 1e-2, dtype=torch.float64)

    def function(points):
        return [((draws + x) @ torch.tensor([1.0, 2.0]).double()).square() for x in points]

    (value,) = function([torch.zeros(2).double()])
    _, hessian = regressed_expansion(function, steps, value, draws, weights)
    exact = torch.tensor([[2.0, 4.0], [4.0, 8.0]]).double()
    assert torch.allclose(hessian, exact.expand_as(hessian), atol=1e-6)


def test_where_the_regression_does_not_hold_all_mixed_derivatives_are_differences():
    """Of a ridge that is curved, the second derivatives are not linear in the draw."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(200, 3, 2, generator=generator, dtype=torch.float64)
    weights = torch.full((200, 3), 1 / 200, dtype=torch.float64)
    steps = torch.full((3,), 1e-2, dtype=torch.float64)

    def ridge(point):
        a, b = (draws + point[:2]).unbind(-1)
        return -4 * (b - a**2 + point[2]).square() - a**2 / 2

    def function(points):
        return [ridge(x) for x in points]

    value = ridge(torch.zeros(3).double())
    found = regressed_expansion(function, steps, value, draws, weights)
    expected = expansion(function, steps, value)
    assert torch.allclose(found[0], expected[0])
    assert torch.allclose(found[1], expected[1], atol=1e-6)


def test_gradients_that_are_wrong_at_some_points_are_left_out():
    """The slope of x^2 at the places 1 and 2, of which the second is given as a half."""
    places = torch.tensor([1.0, 2.0]).double()
    share = torch.tensor([1.0, 0.5]).double()

    def squares(points):
        moved = [places + point[0] for point in points]
        return [(x**2, (2 * share * x).unsqueeze(-1)) for x in moved]

    steps = torch.full((1,), 0.01).double()
    gradient, hessian = expansion_of_gradients(squares, steps, places**2, 0.1)
    assert gradient[:, 0].tolist() == pytest.approx([2.0, 0.0])
    assert hessian[:, 0, 0].tolist() == pytest.approx([2.0, 0.0])
    unchecked, _ = expansion_of_gradients(squares, steps, places**2)
    assert unchecked[:, 0].tolist() == pytest.approx([2.0, 2.0])
