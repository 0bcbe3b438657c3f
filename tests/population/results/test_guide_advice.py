"""The advice on guides says what the fit at hand shows."""

import pyro_amortized as pa
from pyro_amortized.population.results.guide_advice import guide_advice
from tests.exact import linear_program


def test_a_short_fit_without_a_guide_needs_none(linear):
    fit = pa.fit_population(linear_program, linear, num_draws=100, seed=1)
    assert fit.seconds > 0
    assert "without a guide" in fit.advice
    assert "does not pay" in fit.advice


def test_a_long_fit_without_a_guide_names_it():
    advice = guide_advice("corrected", False, ["student-t mixture"] * 3, 310.0)
    assert "5.2 min without a guide" in advice
    assert "does not pay" not in advice


def test_the_share_that_the_guide_served_is_said():
    few = guide_advice("corrected", True, ["guide", "student-t mixture", "nuts"], 5.0)
    assert "served 1 of 3 individuals" in few
    assert "fit without it" in few
    most = guide_advice("corrected", True, ["guide", "guide", "nuts"], 5.0)
    assert "served 2 of 3 individuals" in most
    assert "pays" in most


def test_a_learned_density_needs_a_guide():
    assert "needs a guide" in guide_advice("likelihood-free", True, ["guide"], 5.0)
