r"""Newton steps without derivatives."""

import pytest
import torch

from pyro_amortized.numerics.gaussians import Gaussians
from pyro_amortized.numerics.newton_steps import (
    best_of,
    climb,
    is_highest,
    newton,
    newton_step,
    stencil,
)


def gaussian(mean, precision):
    def target(points):
        off = points - mean
        return -0.5 * torch.einsum("kni,nij,knj->kn", off, precision, off)

    return target


@pytest.mark.parametrize("num_dims", [1, 2, 4])
def test_one_step_is_exact_for_a_gaussian(num_dims):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20, num_dims, generator=generator).double()
    root = torch.randn(20, num_dims, num_dims, generator=generator).double()
    precision = root @ root.transpose(1, 2) + 0.5 * torch.eye(num_dims).double()
    scale = 1.5 * torch.eye(num_dims).double().expand(20, -1, -1)
    target = gaussian(mean, precision)
    maximum = newton(target, torch.zeros_like(mean), scale, 1)
    assert torch.allclose(maximum.location, mean, atol=1e-8)
    covariance = maximum.scale_tril @ maximum.scale_tril.transpose(1, 2)
    assert torch.allclose(covariance, torch.linalg.inv(precision), atol=1e-8)
    assert maximum.shape.abs().max() < 1e-6  # nothing is left to learn
    assert maximum.shape.shape == (20, len(stencil(num_dims)) - 1)


def test_steps_lead_upwards_on_a_curved_ridge():
    def banana(points):
        x, y = points.unbind(-1)
        return -0.5 * x**2 / 0.25 - 0.5 * (y - x**2) ** 2 / 0.01

    start = torch.tensor([[1.0, 0.5], [-1.5, 2.0]]).double()
    scale = torch.eye(2).double().expand(2, -1, -1)
    maximum = newton(banana, start, scale, 25)
    assert (banana(maximum.location) > -0.2).all()
    assert maximum.shape.abs().max() > 0.1  # what the second flow learns from


def test_what_is_not_finite_is_avoided():
    def half(points):
        return torch.where(points[..., 0] > 0, -0.5 * (points[..., 0] - 1) ** 2, torch.nan)

    one = torch.ones(1, 1).double()
    maximum = newton(half, 3 * one, 5 * one.unsqueeze(0), 6)
    assert maximum.location.item() == pytest.approx(1.0, abs=1e-6)
    (start,), (scale,) = best_of(half, Gaussians(-0.5 * one, one.unsqueeze(0)), 32, 1, 0.0)
    assert start.item() > 0
    assert scale.item() == pytest.approx(1 / 32)


def test_a_place_of_density_zero_has_no_density():
    _, _, log_density = newton_step(
        lambda x: torch.full(x.shape[:-1], -torch.inf, dtype=x.dtype),
        torch.zeros(3, 2, dtype=torch.float64),
        torch.eye(2, dtype=torch.float64).expand(3, 2, 2),
    )
    assert log_density.tolist() == [-torch.inf] * 3


def test_merged_starts_end_at_the_modes_that_they_lead_to():
    """Two modes each: four starts end where they end without merging, with fewer evaluations."""
    centres = torch.tensor([[-3.0, 4.0], [2.0, -1.0], [0.0, 6.0]]).double()
    evaluated = []

    def target_of(rows):
        def target(points):
            by_row = points.reshape(-1, len(rows), 1)
            evaluated.append(by_row.shape[:2].numel())
            distance = (by_row - centres[rows]).square()  # (point, row, mode)
            density = torch.logsumexp(-2 * distance + torch.tensor([0.0, -1.0]).double(), -1)
            return density.reshape(points.shape[:-1])

        return target

    apart = torch.tensor([[-1.0], [-0.2], [0.1], [1.0]]).double()
    starts = (centres[:, 0] + centres[:, 1]) / 2 + 3 * apart
    scale = torch.ones(4, 3, 1, 1).double()
    ends = {}
    for merge in (False, True):
        evaluated.clear()
        location, _, density = climb(target_of, starts.unsqueeze(-1), scale, 8, merge)
        ends[merge] = (location, density, sum(evaluated))
    assert torch.allclose(ends[True][0], ends[False][0], atol=0.02)
    assert torch.allclose(ends[True][1], ends[False][1], atol=1e-3)
    assert ends[True][2] < 0.75 * ends[False][2]


def two_peaks(points):
    """A high, narrow mode at 0, and at 8 a lower one on a tail that rises slowly towards it."""
    x = points[..., 0]
    low = -20 - 0.5 * (1 + (x - 8) ** 2).log()
    return torch.logaddexp(-0.5 * (x / 0.05) ** 2, low)


def test_starts_are_apart_as_far_as_there_are_such():
    normal = Gaussians(torch.full((1, 1), 4.0).double(), torch.full((1, 1, 1), 3.0).double())
    together, _ = best_of(two_peaks, normal, 32, 2, 0.0)
    apart, scales = best_of(two_peaks, normal, 32, 2, 1.0)
    assert float((together[0] - together[1]).abs()) < 3.0
    assert float((apart[0] - apart[1]).abs()) >= 3.0
    assert torch.equal(apart[0], together[0])  # the best one
    assert scales.shape == (2, 1, 1, 1)
    every, _ = best_of(two_peaks, normal, 4, 4, 10.0)
    assert len(every.unique()) == 4


def test_every_merged_start_ends_at_a_mode_of_its_own():
    """The highest start of a problem is at its mode long before the others are."""
    starts = torch.tensor([0.01, 12.0, 30.0]).double().reshape(3, 1, 1)
    scales = torch.ones(3, 1, 1, 1).double()
    location, scale, density = climb(lambda _: two_peaks, starts, scales, 2, merge=True)
    assert location[:, 0, 0].tolist() == pytest.approx([0.0, 8.0, 8.0], abs=0.05)
    assert is_highest(location, scale, density)[:, 0].sum() == 2
