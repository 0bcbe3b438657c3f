"""Profile likelihoods against the exact linear Gaussian model."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.population.likelihood import expanded_likelihood
from pyro_amortized.population.likelihood.expanded_likelihood import ExpansionSettings
from tests.exact import exact_log_marginal, unpack


@pytest.mark.slow
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
    assert repr(profile).startswith(f"{name}: 95 % interval {profile.lower:.4g} to ")
    assert profile.minus2ll.min() < 1e-6
    assert (profile.values[1:] > profile.values[:-1]).all()


@pytest.mark.slow
def test_profiles_are_the_same_in_both_kinds_of_coordinates(fit, monkeypatch):
    """The observations are expanded in the individual parameters, or in the shared ones alone."""
    exact = pa.profile_likelihood(fit, "sigma")
    settings = ExpansionSettings(max_elements=0)
    monkeypatch.setattr(expanded_likelihood, "EXPANSION", settings)
    profile = pa.profile_likelihood(fit, "sigma")
    width = exact.upper - exact.lower
    assert abs(profile.lower - exact.lower) < 0.02 * width
    assert abs(profile.upper - exact.upper) < 0.02 * width


def test_what_has_no_standard_error_is_refused(fit):
    with pytest.raises(FitError, match="no parameter 'nu'"):
        pa.profile_likelihood(fit, "nu")
    with pytest.raises(FitError, match="`num_replicates` is 1"):
        pa.bootstrap(fit, num_replicates=1)
