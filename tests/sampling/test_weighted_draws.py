"""Weighted draws and refinements are values: a replacement gives a new one."""

import torch

from pyro_amortized.sampling.sampling_stage import Stage
from pyro_amortized.sampling.student_mixture import StudentMixture
from pyro_amortized.sampling.weighted_draws import Refinement, Sampled, Weighted


def weighted(num_draws, num_rows, value):
    draws = torch.full((num_draws, num_rows, 2), value, dtype=torch.float64)
    return Weighted(draws, draws[..., 0], draws[..., 0] + 1)


def mixture(num_rows, num_components, value):
    return StudentMixture(
        torch.full((num_rows, num_components), value, dtype=torch.float64),
        torch.full((num_rows, num_components, 2), value, dtype=torch.float64),
        torch.eye(2, dtype=torch.float64).repeat(num_rows, num_components, 1, 1),
    )


def test_replaced_draws_are_new_and_the_old_ones_unchanged():
    old, new = weighted(5, 3, 0.0), weighted(5, 2, 7.0)
    result = old.replaced(torch.tensor([2, 0]), new)
    assert result.draws[0, :, 0].tolist() == [7.0, 0.0, 7.0]
    assert result.log_weights[0].tolist() == [8.0, 1.0, 8.0]
    assert (old.draws == 0).all()
    back = result.take(torch.tensor([0, 2]))
    assert torch.equal(back.log_proposal, new.log_proposal)
    joined = Weighted.cat([old, new])
    assert joined.draws.shape == (5, 5, 2)
    empty = Weighted.without_weight(4, 3, old)
    assert (empty.log_weights == -torch.inf).all()
    assert empty.draws.shape == (4, 3, 2)


def test_a_replaced_refinement_keeps_its_number_of_components():
    none = Refinement.none(weighted(5, 3, 0.0), 5, 3)
    assert none.refined.tolist() == [False, False, False]
    rows = torch.tensor([1])
    fitted = none.with_mixtures(rows, mixture(1, 2, -0.5)).with_guides(rows, mixture(1, 3, -1.0))
    assert fitted.mixture.means.shape == (3, 5, 2)
    assert fitted.mixture.means[1, :, 0].tolist() == [-0.5] * 5  # padded by the first component
    assert fitted.mixture.log_weights[1, :2].tolist() == [-0.5, -0.5]
    assert (fitted.mixture.log_weights[1, 2:] < -20).all()
    assert (none.mixture.means == 0).all()
    mixtures = (fitted.mixture.take(rows), fitted.guide.take(rows))
    refined = Refinement(torch.tensor([Stage.MIXTURE]), *mixtures, torch.tensor([1]))
    first = Sampled(weighted(5, 3, 0.0), none)
    result = first.replaced(rows, Sampled(weighted(5, 1, 2.0), refined))
    assert result.refinement.refined.tolist() == [False, True, False]
    assert result.take(rows).weighted.draws.unique().tolist() == [2.0]
    assert not bool(first.refinement.refined.any())
