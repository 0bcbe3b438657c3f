"""Gradients by automatic differentiation, against closed forms, and where they do not hold."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.model import read_structure
from pyro_amortized.population.following import density_gradients
from pyro_amortized.population.following.density_gradients import (
    GradientSettings,
    differentiable_rows,
    values_and_gradients,
)
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood import expanded_likelihood
from pyro_amortized.population.likelihood.expanded_likelihood import ExpandedLikelihood
from pyro_amortized.population.likelihood.expansion_settings import ExpansionSettings
from tests.exact import TRUTH, linear_program

FEW = GradientSettings(min_values=0, num_compared=3)


def program_with(prediction_of):
    """The linear program with another way to compute its predictions."""

    def program(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
            y = cohort["y"]
            prediction = prediction_of(phi, y.times)
            error = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", error, obs=y.values)

    return program


def line(phi, times):
    return phi[:, :1] + phi[:, 1:] * times


def by_numpy(phi, times):
    return torch.as_tensor(line(phi.numpy(), times.numpy()))


def cut_for_some(phi, times):
    """Torch loses track of the individuals whose first time is late."""
    prediction = line(phi, times)
    return torch.where(times[:, :1] > 0.5, prediction.detach(), prediction)


def without_gradient_above(phi, times):
    """Torch gives NaN where an intercept is above the median, as of `where` over a square root."""
    prediction, far = line(phi, times), phi[:, :1] - 0.4
    zero = torch.where(far > 0, 0.0, 1.0) * torch.where(far > 0, far * 0, far * 0 + 1).sqrt()
    return prediction + zero - torch.where(far > 0, 0.0, 1.0)


def drawn(program, cohort):
    return pa.sample_individuals(program, cohort, TRUTH, num_draws=60, seed=1)


def rows_of(individuals):
    following = follow(individuals, torch.ones(5).double())
    parts = (individuals.structure, individuals.cohort, individuals.unconstrained)
    return differentiable_rows(*parts, individuals.population, following.axes)


def test_gradients_are_those_of_the_closed_form(linear):
    structure = read_structure(linear_program, linear)
    draws = torch.randn(7, len(linear), 2, generator=torch.Generator().manual_seed(1)).double()
    population = {name: x.double() for name, x in TRUTH.items()}
    values, observed, individual = values_and_gradients(structure, linear, draws, population)
    y, variance = linear["y"], population["sigma"] ** 2
    error = (y.values - draws[..., :1] - draws[..., 1:] * y.times) * y.observed / variance
    exact = torch.stack([error.sum(-1), (error * y.times).sum(-1)], -1)
    assert torch.allclose(observed, exact)
    law = -(draws - population["mean"]) / population["omega"] ** 2
    assert torch.allclose(individual, law)
    expected = structure.log_density(linear, draws, population).observation
    assert torch.equal(values, expected)
    assert not values.requires_grad


def test_they_hold_for_programs_in_torch(linear, monkeypatch):
    individuals = drawn(linear_program, linear)
    assert not rows_of(individuals).any()  # few values: differences take as little time
    monkeypatch.setattr(density_gradients, "GRADIENTS", FEW)
    assert rows_of(individuals).all()


def test_what_torch_does_not_see_is_left_to_differences(linear, monkeypatch):
    monkeypatch.setattr(density_gradients, "GRADIENTS", FEW)
    assert not rows_of(drawn(program_with(by_numpy), linear)).any()
    is_cut = linear["y"].times[:, 0] > 0.5
    assert 5 < int(is_cut.sum()) < len(linear) - 5
    assert torch.equal(rows_of(drawn(program_with(cut_for_some), linear)), ~is_cut)


@pytest.mark.parametrize("prediction", [line, by_numpy, cut_for_some, without_gradient_above])
def test_the_moves_are_the_same(linear, prediction, monkeypatch):
    individuals, scale = drawn(program_with(prediction), linear), torch.ones(5).double()
    by_differences = follow(individuals, scale)
    monkeypatch.setattr(density_gradients, "GRADIENTS", FEW)
    by_torch = follow(individuals, scale)
    for name in ("directions", "rates", "scores"):
        assert torch.allclose(getattr(by_torch, name), getattr(by_differences, name), atol=1e-4)


@pytest.mark.parametrize("prediction", [line, cut_for_some, without_gradient_above])
def test_the_expansion_is_the_same(linear, prediction, monkeypatch):
    individuals, scale = drawn(program_with(prediction), linear), torch.ones(5).double()
    (expected,) = ExpandedLikelihood(individuals, scale).parts
    monkeypatch.setattr(density_gradients, "GRADIENTS", FEW)
    monkeypatch.setattr(expanded_likelihood, "EXPANSION", ExpansionSettings(min_by_torch=1))
    likelihood = ExpandedLikelihood(individuals, scale)
    assert likelihood.by_torch.all() == (prediction is line)
    assert likelihood.by_torch.any()
    (found,) = likelihood.parts
    assert torch.allclose(found.gradient, expected.gradient, atol=1e-3)
    assert torch.allclose(found.hessian, expected.hessian, rtol=1e-4, atol=1e-2)
