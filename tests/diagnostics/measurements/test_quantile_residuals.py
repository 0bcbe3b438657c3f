"""Residuals given the true parameters are standard normal, whatever the distribution."""

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import random_effect_tests
from pyro_amortized.diagnostics.diagnosis import _measured
from pyro_amortized.diagnostics.measurements.quantile_residuals import (
    _between,
    normal_moments,
    quantile_residuals,
)
from pyro_amortized.diagnostics.measurements.residual_analysis import residuals
from pyro_amortized.runtime.random_numbers import make_generator
from tests.outcome_models import JOINT, joint, joint_design, simulated

NUM, WIDTH = 150, 4


def ordered(level):
    return dist.OrderedLogistic(level, torch.tensor([-1.0, 0.5, 2.0]).double())


LAWS = {
    "normal": lambda x: dist.Normal(x, 0.5),
    "student": lambda x: dist.StudentT(3.0, x, 0.5),
    "lognormal": lambda x: dist.LogNormal(x, 0.3),
    "censored": lambda x: nlme.Censored(dist.Normal(x, 0.5), low=-0.5, high=1.0),
    "censored above a floor": lambda x: nlme.Censored(
        nlme.Truncated(dist.Normal(x + 2, 0.5), low=0.0), low=1.0, floor=0.0
    ),
    "rounded": lambda x: nlme.Rounded(dist.Normal(x, 0.5), width=0.5),
    "poisson": lambda x: dist.Poisson(x.exp()),
    "negative binomial": lambda x: dist.NegativeBinomial(2.0, logits=x),
    "bernoulli": lambda x: dist.Bernoulli(logits=x),
    "ordered": ordered,
}


def model_of(law):
    def model(cohort):
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(cohort)):
            u = pyro.sample("u", dist.Normal(torch.zeros(()), omega))
            y = cohort["y"]
            level = u[..., None].expand(*u.shape, y.values.shape[-1])
            pyro.sample("y", law(level).mask(y.observed).to_event(1), obs=y.values)

    return model


@pytest.mark.filterwarnings("ignore::pyro_amortized.AmortizedWarning")  # few draws are needed
@pytest.mark.parametrize("name", LAWS)
def test_they_are_standard_normal(name):
    torch.manual_seed(4)
    u = torch.randn(NUM, 1).double()
    values = LAWS[name](u.expand(NUM, WIDTH)).sample().double()
    times = torch.arange(float(WIDTH)).double().expand(NUM, -1)
    cohort = pa.Cohort({"y": pa.Series(times, values)})
    population = {"omega": torch.tensor(1.0).double()}
    individuals = pa.sample_individuals(
        model_of(LAWS[name]), cohort, population, num_draws=25, seed=1, max_chains=0
    )
    z = quantile_residuals(individuals, "y", u.unsqueeze(0), make_generator(1))
    assert z.shape == (1, NUM, WIDTH)
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    if name == "normal":
        assert torch.allclose(z[0], (values - u) / 0.5)


def test_intervals_far_in_a_tail_are_finite():
    bounds = torch.tensor([[9.0, 9.5], [-30.0, -29.0], [-torch.inf, -12.0], [12.0, torch.inf]])
    lower, upper = bounds.double().unbind(1)
    z = _between(lower, upper, torch.full((4,), 0.3).double())
    assert z.isfinite().all()
    assert ((z >= lower) & (z <= upper)).all()


def test_recording_that_the_model_describes_is_not_compared_with_the_parameters():
    cohort = simulated(joint, joint_design(40), JOINT, 3)
    individuals = pa.sample_individuals(joint, cohort, JOINT, num_draws=100, seed=1, max_chains=0)
    assert random_effect_tests(individuals).of("recording") == []
    assert random_effect_tests(individuals).of("variable") != []


def test_values_at_a_limit_are_no_duplicates():
    law = LAWS["censored"]
    times = torch.arange(float(WIDTH)).double().expand(10, -1)
    values = torch.full((10, WIDTH), -0.5).double()
    values[0, 0] = 0.3
    cohort = pa.Cohort({"y": pa.Series(times, values)})
    individuals = pa.sample_individuals(
        model_of(law), cohort, {"omega": torch.tensor(1.0).double()}, num_draws=25, max_chains=0
    )
    found = residuals(individuals, num_simulations=20)
    measured = _measured(cohort, (found,))["y"].observed
    assert int(measured.sum()) == 1
    assert bool(measured[0, 0])


@pytest.mark.parametrize(("low", "high"), [(-0.3, 1.2), (-float("inf"), -2.0), (1.0, float("inf"))])
def test_moments_of_a_score_in_an_interval_are_those_of_the_truncated_distribution(low, high):
    law = scipy.stats.truncnorm(low, high)
    bounds = torch.tensor([[low], [high]]).double()
    first, second = (float(x) for x in normal_moments(*bounds))
    assert first == pytest.approx(law.mean(), abs=1e-6)
    assert second == pytest.approx(law.moment(2), abs=1e-6)


def test_moments_of_a_known_score():
    score = torch.tensor([-1.5, 0.0, 2.0]).double()
    first, second = normal_moments(score, score)
    torch.testing.assert_close(first, score)
    torch.testing.assert_close(second, score.square())
