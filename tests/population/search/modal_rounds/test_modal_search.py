"""Rounds on points about the modes, and fits that start with them."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.model import read_structure
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.modal_rounds.modal_search import ModalSearch, has_modal_rounds
from pyro_amortized.population.search.starting_values import find_start
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_cohort, linear_program


def search_of(program, cohort, guide=None):
    generator = torch.Generator().manual_seed(2)
    structure = read_structure(program, cohort)
    return Search.begin(structure, guide, cohort, "maximum likelihood", generator), generator


def test_value_and_slope_are_those_of_the_closed_form():
    cohort = linear_cohort(num=20)
    search, generator = search_of(linear_program, cohort)
    modal, structure = ModalSearch.like(search), search.structure
    vector = structure.unconstrain_population(TRUTH)
    likelihood = modal.likelihood(modal.draw(vector, 1, generator))

    def exact(x):
        return exact_log_marginal(cohort, structure.constrain_population(x)).sum()

    def found(x):
        return likelihood(structure.constrain_population(x)).sum()

    assert torch.allclose(found(vector), exact(vector), atol=1e-5)
    slopes = [torch.autograd.functional.jacobian(x, vector) for x in (found, exact)]
    assert torch.allclose(*slopes, atol=1e-2)
    # Moved and stretched points, not only those at the center.
    step = 0.05 * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]).double()
    changes = [float(x(vector + step) - x(vector)) for x in (found, exact)]
    assert abs(changes[0] - changes[1]) < 0.05


def test_the_start_of_a_fit_is_near_the_exact_maximum():
    cohort = linear_cohort(num=150, seed=3)
    vector, _, covariance = exact_fit(cohort)
    search, generator = search_of(linear_program, cohort)
    start = find_start(search, num_starts=2, fixed=None, generator=generator)
    assert start.near
    assert ((start.vector - vector).abs() < 0.3 * covariance.diagonal().sqrt()).all()


def test_large_cohorts_start_from_draws(linear):
    search, _ = search_of(linear_program, linear)
    assert has_modal_rounds(search)
    assert has_modal_rounds(replace(search, guide=object()))
    assert not has_modal_rounds(replace(search, cohort=linear.repeat(2_000 // len(linear) + 1)))


def two_levels(cohort):
    """A random intercept and one of each of three occasions; four values on each occasion."""
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    between = pyro.sample("between", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    y = cohort["y"]
    with pyro.plate("individual", len(cohort)):
        own = pyro.sample("own", dist.Normal(mean, omega))
        scale = between[..., None].expand(*between.shape, 3)
        kappa = pyro.sample("kappa", dist.Normal(torch.zeros(3), scale).to_event(1))
        level = (own[..., None] + kappa).repeat_interleave(4, -1)
        noise = dist.Normal(level, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", noise, obs=y.values)


def two_level_cohort(num=60):
    generator = torch.Generator().manual_seed(4)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).double()

    level = 1 + 0.5 * normal(num, 1) + (0.4 * normal(num, 3)).repeat_interleave(4, 1)
    values = level + 0.3 * normal(num, 12)
    return pa.Cohort({"y": pa.Series(torch.arange(12.0).double().expand(num, -1), values)})


def exact_two_levels(cohort):
    """The maximum of the closed form and its value: mean, logarithms of the deviations."""
    values = cohort["y"].values
    same = torch.block_diag(*[torch.ones(4, 4).double()] * 3)

    def objective(x):
        omega, between, sigma = x[1:].exp().square()
        covariance = omega + between * same + sigma * torch.eye(12).double()
        normal = torch.distributions.MultivariateNormal(x[:1].expand(12), covariance)
        return normal.log_prob(values).sum()

    start = torch.tensor([1.0, -0.7, -0.9, -1.2]).double()
    optimum = maximize(objective, start, max_iterations=200)
    return optimum.vector, optimum.value


def test_no_level_of_variability_is_lost():
    """A first step may be far too large for a deviation; where it is nearly zero, the likelihood is
    flat in its logarithm.
    """
    cohort = two_level_cohort()
    vector, value = exact_two_levels(cohort)
    search, generator = search_of(two_levels, cohort)
    start = find_start(search, num_starts=4, fixed=None, generator=generator)
    assert (start.vector - vector).abs().max() < 0.05
    fit = pa.fit_population(two_levels, cohort, seed=1)
    assert fit.converged
    assert abs(fit.minus2ll + 2 * value) < 0.1 + 3 * fit.marginal.minus2ll_mc_error


def test_a_deviation_that_is_nearly_zero_is_left_where_a_larger_one_is_likelier():
    cohort = two_level_cohort()
    vector, _ = exact_two_levels(cohort)
    search, generator = search_of(two_levels, cohort)
    modal = ModalSearch.like(search)
    free = torch.zeros(4, dtype=torch.bool)
    assert modal.larger(modal.draw(vector, 1, generator), free) is None
    collapsed = vector.clone()
    collapsed[2] = -8.0
    points = modal.draw(collapsed, 1, generator)
    larger = modal.larger(points, free)
    assert larger is not None
    assert abs(float(larger[2] - vector[2])) < 2.0
    assert (larger == collapsed).sum() == 3
    assert modal.larger(points, ~free) is None


def test_a_standard_deviation_that_is_fixed_near_zero_stays_there():
    cohort = two_level_cohort(num=20)
    fixed = {"between": torch.tensor(1e-4).double()}
    fit = pa.fit_population(two_levels, cohort, fixed=fixed, seed=1, num_draws=100)
    assert torch.allclose(fit.estimates["between"], fixed["between"])
