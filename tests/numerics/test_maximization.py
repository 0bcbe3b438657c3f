import torch

from pyro_amortized.numerics.laplace import (
    confidence_interval,
    delta_method,
    difference_steps,
    laplace_covariance,
)
from pyro_amortized.numerics.maximization import maximize, observed_information

A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)


def bowl(x):
    d = x - torch.tensor([1.0, -2.0], dtype=torch.float64)
    return -0.5 * d @ A @ d


def test_maximum_and_information():
    best = maximize(bowl, torch.zeros(2))
    assert best.converged
    assert torch.allclose(best.vector, torch.tensor([1.0, -2.0]).double(), atol=1e-4)
    assert torch.allclose(observed_information(bowl, best.vector), A, atol=1e-6)
    curvature = laplace_covariance(bowl, best.vector)
    assert curvature.is_maximum
    assert torch.allclose(curvature.covariance, torch.linalg.inv(A), atol=1e-6)


def test_parameters_of_very_different_size():
    """One parameter in hundreds, one in thousandths: found with scales, and the information too."""
    scale = torch.tensor([300.0, 0.003], dtype=torch.float64)
    middle = torch.tensor([700.0, 0.002], dtype=torch.float64)

    def objective(x):
        d = (x - middle) / scale
        return -0.5 * d @ A @ d

    best = maximize(objective, torch.zeros(2), scale=scale)
    assert torch.allclose((best.vector - middle) / scale, torch.zeros(2).double(), atol=1e-3)
    expected = torch.outer(scale, scale) * torch.linalg.inv(A)
    covariance = laplace_covariance(objective, best.vector, scale).covariance
    assert torch.allclose(covariance / expected, torch.ones(2, 2).double(), atol=1e-4)


def test_wide_units_hide_neither_precise_nor_weak_parameters():
    """A slope that is 1e5 times as precise as its prior, and a logarithm that is not: both have
    their covariance, and a direction without information between two precise ones is flat.
    """
    scale = torch.tensor([1000.0, 1.0, 1000.0], dtype=torch.float64)
    exact = torch.tensor([[1e4, 5.0, 0.0], [5.0, 4.0, 0.0], [0.0, 0.0, 1e4]], dtype=torch.float64)

    def objective(x):
        return -0.5 * x @ exact @ x

    zero = torch.zeros(3).double()
    steps = difference_steps(torch.linalg.cholesky(exact).T, scale)
    assert torch.allclose(steps, torch.tensor([3e-6, 1e-3, 3e-6]).double())
    curvature = laplace_covariance(objective, zero, scale, difference=steps)
    assert curvature.is_maximum
    assert torch.allclose(curvature.covariance, torch.linalg.inv(exact), rtol=1e-6, atol=1e-12)
    sum_alone = exact.clone()
    sum_alone[2, 0] = sum_alone[0, 2] = 1e4
    sum_alone[2, 1] = sum_alone[1, 2] = 5.0
    curvature = laplace_covariance(lambda x: -0.5 * x @ sum_alone @ x, zero, scale, None, steps)
    assert not curvature.is_maximum
    (flat,) = curvature.flat
    assert torch.allclose(flat / flat[0], torch.tensor([1.0, 0.0, -1.0]).double(), atol=1e-6)
    assert curvature.covariance.diagonal().isnan().tolist() == [True, False, True]


def test_values_that_are_not_finite_are_survived():
    best = maximize(lambda x: torch.log(x).sum() - x.sum(), torch.full((2,), 5.0))
    assert torch.allclose(best.vector, torch.ones(2).double(), atol=1e-3)


def test_undetermined_directions_are_nan_not_numbers():
    curvature = laplace_covariance(lambda x: -(x[0] ** 2) + 0 * x[1], torch.zeros(2).double())
    assert not curvature.is_maximum
    assert curvature.covariance[0, 0].isfinite()
    assert curvature.covariance[1, 1].isnan()
    value, error = delta_method(lambda x: x, torch.zeros(2).double(), curvature.covariance)
    assert value.tolist() == [0.0, 0.0]
    assert error.isnan().tolist() == [False, True]


def test_intervals_stay_in_the_support():
    lower, upper = confidence_interval(
        torch.exp, torch.zeros(1).double(), torch.eye(1).double() * 4
    )
    assert 0 < float(lower) < 1 < float(upper)
    assert torch.allclose(lower * upper, torch.ones(1).double())


def test_a_rough_maximum_ends_with_the_first_iteration_that_gains_little():
    """On a long valley the optimizer stops early, at the best point so far, and says so."""
    evaluated = []

    def valley(x):
        evaluated.append(x)
        return -100 * (x[1] - x[0] ** 2) ** 2 - (1 - x[0]) ** 2

    start = torch.tensor([-1.2, 1.0])
    full, num_full = maximize(valley, start), len(evaluated)
    rough = maximize(valley, start, min_share=0.1)
    assert len(evaluated) - num_full < num_full / 3
    assert float(valley(start)) < rough.value < full.value - 0.1
    assert rough.value == float(valley(rough.vector))
