"""Checks of arguments: what is inside the range passes, all else is an error of three parts."""

import math

import pytest
import torch

from pyro_amortized.errors import FitError, SettingError
from pyro_amortized.runtime.arguments import (
    check_count,
    check_is,
    check_number,
    check_program,
    check_seed,
)


@pytest.mark.parametrize("value", [25, 26, 10**9])
def test_counts_in_the_range(value):
    check_count("num_draws", value, least=25)


@pytest.mark.parametrize("value", [24, -1, 25.0, "25", None, True, math.nan])
def test_counts_outside_the_range(value):
    with pytest.raises(SettingError, match="`num_draws` is") as caught:
        check_count("num_draws", value, least=25)
    assert caught.value.fix == "pass for example `num_draws=25`."


def test_counts_have_an_upper_limit_only_where_there_is_one():
    check_count("num_bins", 10, most=10)
    with pytest.raises(FitError, match="at least 1 and at most 10"):
        check_count("num_bins", 11, most=10, error=FitError)


@pytest.mark.parametrize(
    ("value", "with_low", "with_high", "inside"),
    [
        (0, True, True, True),
        (0, False, True, False),
        (1.0, True, True, True),
        (1.0, True, False, False),
        (0.5, False, False, True),
        (-1e-9, True, True, False),
        (math.nan, True, True, False),
        (True, True, True, False),
        ("0.5", True, True, False),
    ],
)
def test_numbers_in_an_interval(value, with_low, with_high, inside):
    def check():
        check_number("share", value, 0, 1, with_low=with_low, with_high=with_high)

    if inside:
        check()
    else:
        low, high = (
            "at least" if with_low else "larger than",
            "at most" if with_high else "smaller than",
        )
        with pytest.raises(SettingError, match=f"a number, {low} 0 and {high} 1"):
            check()


def test_infinity_is_no_number_of_a_half_line():
    check_number("rate", 1e300, 0)
    with pytest.raises(SettingError, match="at least 0"):
        check_number("rate", math.inf, 0)
    with pytest.raises(SettingError, match="larger than 0"):
        check_number("rate", 0.0, 0, with_low=False)


def test_classes_are_named_once():
    check_is("seed", 1, (int, torch.Generator), "pass a seed.")
    with pytest.raises(SettingError, match="an int or Generator"):
        check_is("seed", "one", (int, int, torch.Generator), "pass a seed.")


def test_programs_are_callable():
    check_program(lambda cohort: None)
    with pytest.raises(SettingError, match="not callable"):
        check_program("model")


@pytest.mark.parametrize("seed", [0, 2**63 - 1, torch.Generator()])
def test_seeds(seed):
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "one", None])
def test_what_is_no_seed(seed):
    with pytest.raises(SettingError, match="`seed` is"):
        check_seed(seed)
