"""Estimates far from their prior, and units that were mixed up."""

from dataclasses import replace

import pytest

from pyro_amortized.diagnostics.prior_checks import _common_factor, _unit_words, prior_checks


def test_estimates_inside_their_prior_pass(fit):
    (check,) = prior_checks(fit)
    assert check.status == "passed"


def test_an_estimate_far_outside_is_named_with_its_units(fit):
    """The prior of the mean has the standard deviation 1."""
    scale = fit.search.scale[0]
    middle = replace(fit, vector=fit.vector.clone())
    middle.vector[1] += 4.2 * scale
    (check,) = prior_checks(middle)
    assert check.status == "look"
    assert check.words.startswith("mean[1] lies +")
    assert "Check the units" in check.words


@pytest.mark.parametrize(
    ("move", "words"),
    [(4.1, "minutes and hours"), (-2.4, "factor of ten"), (6.8, "milligrams"), (1.0, "")],
)
def test_factors_between_units_are_recognised(move, words):
    assert (words in _unit_words(move)) if words else _unit_words(move) == ""


def test_a_common_factor_of_several_estimates_is_recognised():
    """Values times ten: clearance and volume are a tenth, each 2.3 prior sds out."""
    moves = {"ka": (0.1, 0.1), "cl": (-2.2, -2.2), "v": (-2.4, -2.4)}
    words = _common_factor(moves)
    assert words.startswith("cl and v lie -2.3")
    assert "a factor of 10" in words
    assert _common_factor(moves | {"v": (2.4, 2.4)}) == ""
    assert _common_factor({"cl": (-2.2, -0.5), "v": (-2.4, -0.5)}) == ""  # a wide prior
