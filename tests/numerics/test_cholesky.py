"""Cholesky factors of matrices that are not positive definite."""

import torch

from pyro_amortized.numerics.cholesky import factored
from pyro_amortized.sampling.student_mixture import fit_student_mixture


def test_good_covariances_have_their_own_factor():
    root = torch.randn(7, 3, 3).double()
    covariance = root @ root.mT + 0.1 * torch.eye(3)
    assert torch.equal(factored(covariance), torch.linalg.cholesky(covariance))


def test_one_bad_covariance_leaves_the_others_alone():
    good = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    bad = [
        torch.ones(2, 2).double(),  # singular
        torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double(),  # indefinite
        torch.zeros(2, 2).double(),
        torch.full((2, 2), torch.nan).double(),
        torch.tensor([[torch.inf, 0.0], [0.0, 4.0]]).double(),
    ]
    factors = factored(torch.stack([good, *bad]))
    assert torch.equal(factors[0], torch.linalg.cholesky(good))
    assert factors.isfinite().all()
    assert (factors.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.allclose(factors[1] @ factors[1].T, bad[0], atol=1e-6)
    assert factors[5][1, 1] == 2.0


def test_a_draw_that_is_not_finite_does_not_end_a_mixture():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400, 2, 3, generator=generator, dtype=torch.float64)
    weights = torch.full((400, 2), 1 / 399, dtype=torch.float64)
    draws[7, 0], weights[7, 0] = torch.inf, 0.0
    mixture = fit_student_mixture(draws, weights, 3, generator)
    log_prob = mixture.log_prob(draws[8:])
    assert log_prob.isfinite().all()
    assert abs(log_prob[:, 0].mean() - log_prob[:, 1].mean()) < 0.2
