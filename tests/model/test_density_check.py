"""Programs whose density is not finite near the prior."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedWarning, ModelError
from pyro_amortized.model import check_density_near_prior, read_structure
from tests.programs import curve, growth_cohort


def program(observation, phi=lambda mean: dist.Normal(mean, 0.5)):
    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 0.3).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.3))
        with pyro.plate("individual", len(cohort)):
            plateau, rate = pyro.sample("phi", phi(mean).to_event(1)).exp().unbind(-1)
            y = cohort["y"]
            distribution = observation(curve(y.times, plateau, rate), sigma[..., None], cohort)
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    return model


def check(model, cohort):
    check_density_near_prior(read_structure(model, cohort), cohort)


def with_value(value, row=3, column=0):
    cohort = growth_cohort(6)
    values = cohort["y"].values.abs() + 0.1
    values[row, column] = value
    series = pa.Series(cohort["y"].times, values, cohort["y"].observed)
    return pa.Cohort({"y": series}, ids=tuple("abcdef"))


def lognormal(f, s, cohort):
    return dist.LogNormal(f.log(), s)


def test_a_zero_under_a_lognormal_error_is_named():
    match = r"1 recorded values .*\(LogNormal\), of individual d; first the value 0 of 'y' at time"
    with pytest.raises(ModelError, match=match):
        check(program(lognormal), with_value(0.0))
    check(program(lognormal), with_value(1e-3))  # a small value is possible
    hidden = with_value(0.0)
    observed = hidden["y"].observed.clone()
    observed[3, 0] = False
    check(program(lognormal), hidden.with_observed({"y": observed}))


def test_a_fit_looks_first():
    with pytest.raises(ModelError, match="outside the support"):
        pa.fit_population(program(lognormal), with_value(0.0))


def test_values_that_are_no_counts():
    with pytest.raises(ModelError, match=r"outside the support of their distribution \(Poisson\)"):
        check(program(lambda f, s, c: dist.Poisson(f)), growth_cohort(6))


def test_a_zero_below_a_limit_is_possible():
    def censored(f, s, cohort):
        return nlme.Censored(dist.LogNormal(f.log(), s), low=0.05)

    check(program(censored), with_value(0.05))


@pytest.mark.parametrize(
    "observation",
    [
        lambda f, s, c: dist.Normal((f - 9.0).sqrt(), s),
        lambda f, s, c: dist.Normal((-f).log(), s),
        lambda f, s, c: dist.Normal(f, 0.0 * s),
        lambda f, s, c: dist.Normal(f / (c["y"].times * 0.0), s),
    ],
)
def test_a_density_that_is_nan_names_individuals_and_values(observation):
    match = r"(?s)The density of 6 individuals 1, 2, 3, 4, 5, \.\.\. is (NaN|minus infinity) at "
    with pytest.raises(ModelError, match=match + r".*first for the value .* of 'y' at time"):
        check(program(observation), growth_cohort(6))


def test_nan_of_one_individual():
    def observation(f, s, cohort):
        is_third = (torch.tensor([float(x) for x in cohort.ids]) == 3.0).double()[:, None]
        return dist.Normal(f + 0.0 * (-is_third).sqrt(), s)

    with pytest.raises(ModelError, match="The density of individual 3 is NaN"):
        check(program(observation), growth_cohort(6))


def test_nan_at_some_draws_is_a_warning():
    def observation(f, s, cohort):
        plateau = f / (1 - (-cohort["y"].times).exp())
        return dist.Normal((plateau - 0.8).sqrt(), s)

    with pytest.warns(AmortizedWarning, match=r"NaN at \d+% of the draws near the prior"):
        check(program(observation), growth_cohort(6))


def test_a_usual_program_passes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(program(lambda f, s, c: dist.Normal(f, s)), growth_cohort(6))
        check(program(lambda f, s, c: dist.StudentT(3.0, f, s)), growth_cohort(6))


def test_events_are_counted_once_and_their_end_once():
    times = torch.tensor([[1.0, 2.0, 5.0], [5.0, torch.nan, torch.nan], [1.0, 4.0, torch.nan]])
    happened = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 0]])
    cohort = pa.Cohort({"y": nlme.event_series(times, happened)})

    def model(c):
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(c)):
            b = pyro.sample("b", dist.Normal(0.0 * omega, omega))
            hazard = nlme.exponential_hazard(b.exp())
            pyro.sample("y", nlme.EventTimes(hazard, c["y"]), obs=c["y"].values)

    # Two events and an end, an end, two events: the second of them ends the observation.
    assert pa.read_structure(model, cohort).num_observations(cohort) == 6
