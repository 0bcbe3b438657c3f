"""Many populations in one call of the program."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.numerics.vectorized_map import AtEach
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood


def test_functions_that_cannot_run_together_run_one_after_another():
    vectors = torch.arange(10.0).reshape(5, 2)

    def plain(x):
        return x.sum() ** 2

    def asks(x):  # what ``torch.vmap`` refuses
        return x.sum() ** 2 if float(x.sum()) > -1 else x.sum()

    def differs(x):  # another value when many run together
        return x.sum() ** 2 + (1.0 if torch._C._functorch.is_batchedtensor(x) else 0.0)

    for function, together in ((plain, True), (asks, False), (differs, False)):
        each = AtEach(function, 4)
        assert torch.equal(each(vectors), vectors.sum(1) ** 2)
        assert each.is_vectorized is together


def test_gradients_are_those_of_single_calls():
    vectors = torch.arange(10.0).double().reshape(5, 2).requires_grad_()
    each = AtEach(lambda x: x.sin().prod(), 3, keeps_gradients=True)
    (found,) = torch.autograd.grad(each(vectors).sum(), vectors)
    (expected,) = torch.autograd.grad(vectors.sin().prod(1).sum(), vectors)
    assert each.is_vectorized
    torch.testing.assert_close(found, expected)
    assert not AtEach(lambda x: x.sum(), 3)(vectors).requires_grad


@pytest.mark.slow
def test_log_likelihoods_of_many_populations_are_those_of_each(small_fit):
    fit = small_fit
    draws = pa.sample_population(fit, num_draws=20, num_proposals=60, seed=1)
    likelihood = draws.likelihood
    exact = ExactLikelihood(likelihood.individuals, likelihood.following)
    vectors, log_likelihoods = draws.vectors, draws.log_likelihoods
    assert len(vectors) == 20
    expected = [exact(fit.structure.constrain_population(x)) for x in vectors]
    assert torch.allclose(log_likelihoods, torch.stack(expected), atol=0.01)
    single = likelihood(fit.structure.constrain_population(vectors[3]))
    assert torch.allclose(log_likelihoods[3], single, rtol=1e-9)
