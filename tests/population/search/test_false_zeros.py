"""Standard deviations that cannot be distinguished from zero at a start, against quadrature."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.search.draw_numbers import schedule_of
from pyro_amortized.population.search.false_zeros import leave_false_zeros
from pyro_amortized.population.search.fit_rounds import Start, first_progress
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.vanishing_deviations import at_best_values
from pyro_amortized.runtime.random_numbers import make_generator
from tests.outcome_models import TREND, binary, exact_minus2ll, simulated, trend_design

NEAR_ZERO = {"typical": -0.5, "slope": 0.2, "omega": 0.003}


def cohort_of(seed, num=60):
    """Individuals with three yes/no values."""
    truth = {n: torch.tensor(x).double() for n, x in (TREND | {"omega": 0.5}).items()}
    return simulated(binary, trend_design(num, (0.0, 1.0, 2.0)), truth, seed)


def fit_from_zero(seed, num=60):
    start = {name: torch.tensor(x) for name, x in NEAR_ZERO.items()}
    return pa.fit_population(binary, cohort_of(seed, num), start=start, seed=1, progress=False)


@pytest.mark.parametrize("seed", [2, 9])
def test_a_fit_leaves_a_zero_where_the_likelihood_is_hardly_lower(seed):
    """The log likelihood is 0.5 lower at zero, and flat in the logarithm there."""
    fit = fit_from_zero(seed)
    at_zero = fit.estimates | {"omega": torch.tensor(0.003).double()}
    assert float(exact_minus2ll(binary, fit.cohort, at_zero).sum()) - fit.minus2ll > 0.8
    assert float(fit.estimates["omega"]) == pytest.approx(0.6, abs=0.05)
    assert fit.undetermined == ()
    exact = float(exact_minus2ll(binary, fit.cohort, fit.estimates).sum())
    assert abs(fit.minus2ll - exact) < 4 * fit.marginal.minus2ll_mc_error


@pytest.mark.parametrize("seed", [1, 2])
def test_a_zero_of_many_individuals_is_left(seed):
    """What the moves of the draws leave out in second order adds up over 400 individuals."""
    fit = fit_from_zero(seed, 400)
    at_zero = fit.estimates | {"omega": torch.tensor(0.003).double()}
    assert float(exact_minus2ll(binary, fit.cohort, at_zero).sum()) - fit.minus2ll > 1.5
    assert fit.converged, fit.message
    from_prior = pa.fit_population(binary, fit.cohort, seed=2, progress=False)
    near = (fit.vector - from_prior.vector) / from_prior.covariance.diagonal().sqrt()
    assert float(near.abs().max()) < 0.1


def test_what_is_held_is_held_where_the_likelihood_is_highest():
    """The maximum is at zero; at a standard deviation of 0.3 the likelihood is hardly lower."""
    cohort = cohort_of(8)
    start = {n: torch.tensor(x).double() for n, x in (NEAR_ZERO | {"omega": 0.3}).items()}
    individuals = pa.sample_individuals(binary, cohort, start, num_draws=300, seed=1)
    structure = individuals.structure
    vector = structure.unconstrain_population(start)
    likelihood = ExactLikelihood(individuals, follow(individuals, torch.ones(3).double()))
    held = torch.tensor([False, False, True])
    found = at_best_values(structure, cohort, likelihood, vector, held)
    population = structure.constrain_population(found)
    assert float(population["omega"]) < 0.2
    before, after = (exact_minus2ll(binary, cohort, x).sum() for x in (start, population))
    assert float(before - after) > 0.1


def test_a_zero_that_is_the_maximum_stays():
    fit = fit_from_zero(8)
    assert float(fit.estimates["omega"]) < 0.05
    assert "cannot be distinguished from zero" in fit.message


def test_larger_values_are_tried_once():
    generator, cohort = make_generator(1), cohort_of(8)
    structure = pa.read_structure(binary, cohort)
    search = Search.begin(structure, None, cohort, "maximum likelihood", generator)
    vector = structure.unconstrain_population(
        {name: torch.tensor(x).double() for name, x in NEAR_ZERO.items()}
    )
    held = torch.zeros(3, dtype=torch.bool)
    schedule = schedule_of(search, 300, 3)
    progress = first_progress(search, Start(vector, near=True), schedule, generator)
    looked, vanishing = leave_false_zeros(search, progress, held, schedule, generator)
    assert looked.has_looked
    assert looked.place is progress.place
    assert vanishing.tolist() == [False, False, True]
    state = generator.get_state()
    again, _ = leave_false_zeros(search, looked, held, schedule, generator)
    assert again.place is looked.place
    assert torch.equal(generator.get_state(), state)  # no new draws
