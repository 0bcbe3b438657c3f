"""Points about the modes, against closed forms and quadrature."""

import math

import numpy
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.model import read_structure
from pyro_amortized.population.search.modal_rounds import modal_points
from pyro_amortized.population.search.modal_rounds.modal_points import (
    ModalSettings,
    point_weights,
    points_about_modes,
    unit_points,
)
from tests.exact import TRUTH, exact_log_marginal, linear_cohort, linear_program
from tests.outcome_models import poisson_counts


def count_cohort(num=60):
    generator = torch.Generator().manual_seed(1)
    times = torch.arange(4.0).double().expand(num, -1).clone()
    rate = (0.5 + 0.7 * torch.randn(num, 1, generator=generator).double()).exp()
    values = torch.poisson(rate.expand(-1, 4), generator=generator)
    return pa.Cohort({"y": pa.Series(times, values)})


def points(program, cohort, population, seed=0):
    structure = read_structure(program, cohort)
    scale = torch.ones(len(structure.population_names)).double()
    values = {name: torch.as_tensor(x).double() for name, x in population.items()}
    generator = torch.Generator().manual_seed(seed)
    return points_about_modes(structure, cohort, values, scale, None, generator)


def test_a_normal_posterior_is_exact():
    cohort = linear_cohort(num=20)
    estimate = points(linear_program, cohort, TRUTH).marginal_estimate
    assert torch.allclose(estimate.log_mean, exact_log_marginal(cohort, TRUTH), atol=1e-6)
    assert (estimate.mc_error < 1e-6).all()


def test_counts_are_those_of_quadrature():
    """With one to six counts in the mean of each individual, the error is 0.006 at most."""
    cohort, mean, omega = count_cohort(), 0.5, 0.7
    found = points(poisson_counts, cohort, {"mean": mean, "omega": omega})
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(60)
    phi = torch.from_numpy(mean + omega * nodes)
    log_density = dist.Poisson(phi.exp()[:, None, None]).log_prob(cohort["y"].values).sum(-1)
    log_weights = torch.from_numpy(weights).log()[:, None] - 0.5 * math.log(2 * math.pi)
    exact = (log_density + log_weights).logsumexp(0)
    error = (found.marginal_estimate.log_mean - exact).abs()

    assert error.max() < 8e-3


def test_extrapolated_values_are_those_of_a_quadratic_function(monkeypatch):
    cohort = linear_cohort(num=20)
    near = points(linear_program, cohort, TRUTH)
    monkeypatch.setattr(modal_points, "MODAL", ModalSettings(max_range=-1.0))
    far = points(linear_program, cohort, TRUTH)
    assert torch.allclose(near.log_weights, far.log_weights, atol=1e-6)
    assert torch.allclose(near.observations.gradient, far.observations.gradient, atol=1e-3)


def test_weights_of_the_points_give_the_moments_of_a_normal_distribution():
    for num_latent in (1, 2, 3, 7):
        unit = unit_points(num_latent)
        weights = point_weights(torch.zeros(len(unit), 1).double())[:, 0]
        assert torch.allclose(weights.sum(), torch.ones(()).double())
        assert torch.allclose(unit.T @ (weights[:, None] * unit), torch.eye(num_latent).double())


def test_what_is_not_normal_along_one_axis_does_not_change_the_moments_of_another_group():
    unit = unit_points(7)
    log_weights = torch.zeros(len(unit), 1).double()
    log_weights[1] = 1.5  # forwards along the first axis
    weights = point_weights(log_weights)
    assert math.isclose(float((weights[:, 0] * unit[:, 6].square()).sum()), 1.0, abs_tol=1e-12)


def test_an_individual_without_values_has_the_likelihood_one():
    cohort = linear_cohort(num=5)
    empty = cohort.with_observed({"y": torch.zeros_like(cohort["y"].observed)})
    found = points(linear_program, empty, TRUTH).marginal_estimate.log_mean
    assert torch.allclose(found, torch.zeros(5).double(), atol=1e-6)
