"""Methods that are not meant for so many individuals say so."""

import pytest

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.population.posterior import cohort_size
from pyro_amortized.population.posterior.cohort_size import SizeSettings


@pytest.mark.parametrize(
    "method", [pa.sample_population, lambda fit: pa.profile_likelihood(fit, "sigma")]
)
def test_they_are_refused(fit, monkeypatch, method):
    monkeypatch.setattr(cohort_size, "SIZE", SizeSettings(max_individuals=30))
    with pytest.raises(FitError, match=r"40 individuals(.|\n)*`fit.covariance`"):
        method(fit)
