"""Warnings point at the user's line."""

import sys
import warnings

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedWarning
from pyro_amortized.runtime import user_warnings
from pyro_amortized.runtime.user_warnings import warn_user
from tests.exact import TRUTH, linear_cohort, linear_program
from tests.programs import STYLES, growth_cohort

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def line_of_next():
    return sys._getframe(1).f_lineno + 1


def check_place(caught, line):
    places = [(x.filename, x.lineno) for x in caught if x.category is AmortizedWarning]
    assert places
    assert set(places) == {(__file__, line)}


def test_a_warning_from_deep_inside_names_the_users_line(linear_guide):
    hopeless = dict(TRUTH, sigma=torch.tensor(1e-7, dtype=torch.float64))
    cohort = linear_cohort(10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw = pa.sample_individuals
        line = line_of_next()
        draw(linear_program, cohort, hopeless, guide=linear_guide, num_draws=100, max_chains=0)
    check_place(caught, line)


def test_a_warning_of_a_training_names_the_users_line():
    options, model, cohort = pa.TrainingOptions(max_epochs=1), STYLES["indexed"], growth_cohort(6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = line_of_next()
        pa.train(model, cohort, num_simulations=100, options=options, progress=False)
    check_place(caught, line)


def test_frames_of_torch_and_pyro_between_ours_are_passed_over():
    """A decorator of torch or a handler of Pyro stands between two frames of the package."""
    names = {"__name__": "pyro_amortized.made_up", "warn_user": warn_user, "torch": torch}
    exec("@torch.no_grad()\ndef inner():\n    warn_user('Said.')\n", names)
    exec("@torch.no_grad()\ndef outer():\n    return inner()\n", names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = line_of_next()
        names["outer"]()
    check_place(caught, line)


def test_a_warning_without_a_users_line_is_still_told(monkeypatch):
    monkeypatch.setattr(user_warnings, "_is_users", lambda frame: False)
    with pytest.warns(AmortizedWarning, match="Said"):
        warn_user("Said.")
