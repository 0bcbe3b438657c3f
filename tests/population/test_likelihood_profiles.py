"""Profile likelihoods against the exact linear Gaussian model."""

from dataclasses import replace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.population import likelihood_choice
from pyro_amortized.population.expanded_likelihood import ExpandedLikelihood
from pyro_amortized.population.likelihood_choice import ChoiceSettings
from tests.exact import exact_log_marginal, unpack


@pytest.mark.parametrize(("name", "index"), [("mean[0]", 0), ("omega[1]", 3), ("sigma", 4)])
def test_profiles_against_exact_profiles(fit, linear, exact, name, index):
    vector, value, _ = exact
    profile = pa.profile_likelihood(fit, name)
    free = torch.ones(5, dtype=torch.bool)
    free[index] = False

    def height(bound):
        z = float(bound) if index < 2 else float(torch.tensor(bound).log())

        def objective(x):
            point = vector.masked_scatter(free, x)
            point = torch.where(free, point, torch.tensor(z).double())
            return exact_log_marginal(linear, unpack(point)).sum()

        return maximize(objective, vector[free]).value

    for bound in (profile.lower, profile.upper):
        assert abs(2 * (value - height(bound)) - 3.84) < 0.4
    assert profile.minus2ll.min() < 1e-6
    assert (profile.values[1:] > profile.values[:-1]).all()


def test_profiles_of_many_draws_are_those_of_the_exact_likelihood(fit, monkeypatch):
    """A residual error is followed by expanding the observations anew on the way."""
    exact = pa.profile_likelihood(fit, "sigma")
    monkeypatch.setattr(likelihood_choice, "CHOICE", ChoiceSettings(max_exact=1))
    expanded = replace(fit)
    assert isinstance(expanded.likelihood, ExpandedLikelihood)
    profile = pa.profile_likelihood(expanded, "sigma")
    width = exact.upper - exact.lower
    assert abs(profile.lower - exact.lower) < 0.02 * width
    assert abs(profile.upper - exact.upper) < 0.02 * width


def test_what_has_no_standard_error_is_refused(fit):
    with pytest.raises(FitError, match="no parameter 'nu'"):
        pa.profile_likelihood(fit, "nu")
    with pytest.raises(FitError, match="`num_replicates` is 1"):
        pa.bootstrap(fit, num_replicates=1)
