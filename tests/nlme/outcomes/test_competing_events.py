"""Competing causes and gap times against closed densities and quadrature."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import residuals
from pyro_amortized.diagnostics.fit_checks import residual_checks
from pyro_amortized.errors import ModelError
from tests.outcome_models import exact_minus2ll

TRUTH = {n: torch.tensor(x).double() for n, x in (("typical", -1.5), ("omega", 0.8))}


def causes(b):
    """A Weibull and a constant hazard, which both depend on b."""
    return nlme.weibull_hazard(torch.exp(-b), 1.5), nlme.exponential_hazard(torch.exp(0.5 * b - 1))


def competing(cohort):
    typical = pyro.sample("typical", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, omega))
        event, cause = cohort["event"], cohort["cause"]
        one, two = causes(b)
        either = pyro.sample("event", nlme.EventTimes(one + two, event), obs=event.values)
        law = nlme.cause_of_event(either, one, two).mask(cause.observed).to_event(1)
        pyro.sample("cause", law, obs=cause.values)


def design(num=60):
    ends = torch.full((num,), 6.0).double()
    cause = pa.Series(ends.unsqueeze(-1), torch.zeros(num, 1).double())
    return pa.Cohort({"event": nlme.event_series(ends, torch.zeros(num)), "cause": cause})


@pytest.fixture(scope="module")
def cohort():
    structure = pa.read_structure(competing, design())
    return pa.simulate_population(structure, design(), TRUTH, seed=1)


def by_hand(cohort, b, known):
    """Each cause censors the other: the density with two hazards, or their sum if the cause is not
    known, at b ``(draw, individual)``.
    """
    times, status = cohort["event"].values[:, 0].unbind(-1)
    log_one = torch.tensor(1.5).double().log() + 1.5 * b + 0.5 * times.log()
    log_two = 0.5 * b - 1 + 0 * times
    cumulative = (times * b.exp()) ** 1.5 + times * torch.exp(0.5 * b - 1)
    of_cause = torch.where(cohort["cause"].values[:, 0] == 1, log_one, log_two)
    of_any = torch.logaddexp(log_one, log_two)
    rate = torch.where(known, of_cause, of_any)
    return torch.where(status > 0, rate, 0.0) - cumulative


@pytest.mark.parametrize("some_unknown", [False, True])
def test_competing_risks_have_the_density_of_cause_specific_hazards(cohort, some_unknown):
    known = torch.arange(len(cohort)) % 3 > 0 if some_unknown else torch.ones(len(cohort)).bool()
    data = cohort.with_observed({"cause": known.unsqueeze(-1)})
    structure = pa.read_structure(competing, data)
    b = torch.linspace(-3, 1, 5).double()[:, None, None].expand(-1, len(data), 1)
    found = structure.log_density(data, b, TRUTH).observation
    torch.testing.assert_close(found, by_hand(data, b[..., 0], known), rtol=1e-9, atol=1e-9)


def test_simulated_causes_belong_to_events(cohort):
    happened = cohort["event"].values[:, 0, 1] > 0
    cause = cohort["cause"].values[:, 0]
    assert bool(((cause > 0) == happened).all())
    assert {1.0, 2.0} <= set(cause.tolist())


def test_checks_of_a_right_model_pass(cohort):
    """Predictions of a cause know whether there was an event, simulations among which it is ranked
    do not.
    """
    individuals = pa.sample_individuals(competing, cohort, TRUTH, num_draws=100)
    found = residuals(individuals, series="cause")
    assert found.reads_others
    assert all(check.status == "passed" for check in residual_checks(found))
    joint = residual_checks(replace(found, reads_others=False))
    assert joint[0].status == "failed"


def test_the_likelihood_of_competing_risks_is_that_of_quadrature(cohort):
    marginal = pa.marginal_likelihood(competing, cohort, TRUTH, seed=1)
    exact = float(exact_minus2ll(competing, cohort, TRUTH).sum())
    assert abs(marginal.minus2ll - exact) < 4 * marginal.minus2ll_mc_error + 1e-6


def test_the_share_of_a_cause_is_its_cumulative_incidence():
    """With constant hazards r and s: r / (r + s) of those with an event by the end."""
    num = 4000
    one, two = nlme.exponential_hazard(0.3), nlme.exponential_hazard(0.1)
    record = nlme.event_series(torch.full((num,), 4.0).double(), torch.zeros(num))
    torch.manual_seed(1)
    event = nlme.EventTimes(one + two, record).sample()
    cause = nlme.cause_of_event(event, one, two).sample()[:, 0]
    total = 1 - torch.exp(torch.tensor(-0.4 * 4.0))
    for k, share in ((1, 0.75), (2, 0.25)):
        p = float(share * total)
        assert abs(float((cause == k).double().mean()) - p) < 4 * (p * (1 - p) / num) ** 0.5


def test_the_sum_of_integrated_hazards_keeps_what_shows_its_error():
    one = nlme.integrated_hazard(lambda t: 0.1 * t, num_nodes=1)
    both = one + nlme.exponential_hazard(torch.tensor(0.5).double())
    times = torch.tensor([[5.0]]).double()
    torch.testing.assert_close(both(times)[1], one(times)[1] + 2.5)
    assert both.finer is not None
    assert both.rate is None
    assert (one + one).rate(times) == pytest.approx(0.5 + torch.log(torch.tensor(2.0)).item())


def test_what_is_no_cause_is_refused():
    hazard = nlme.exponential_hazard(0.3)
    with pytest.raises(ModelError, match="two or more hazards"):
        nlme.cause_of_event(torch.ones(2, 1, 2), hazard)
    with pytest.raises(ModelError, match="time and status"):
        nlme.cause_of_event(torch.ones(2, 1), hazard, hazard)
    with pytest.raises(TypeError):
        hazard + 1.0


# Gap times.

SCALE, SHAPE = torch.tensor([2.0, 3.0]).double(), torch.tensor([1.6, 0.8]).double()
HAPPENED = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).double()


@pytest.mark.parametrize("kind", ["closed", "integrated"])
def test_gap_times_have_the_density_of_a_renewal_process(kind):
    record = nlme.event_series(
        torch.tensor([[1.0, 4.0, 5.0], [2.0, 7.0, torch.nan]]).double(), HAPPENED, end=9.0
    )
    begin = torch.tensor([0.5, 0.0]).double()
    hazard = nlme.weibull_hazard(SCALE, SHAPE)
    if kind == "integrated":
        closed = hazard
        hazard = nlme.integrated_hazard(lambda t: closed(t)[0], num_nodes=64)
    law = nlme.EventTimes(hazard, record, begin=begin, clock="reset")
    gaps = [[1.0, 3.0, 1.0], [2.0, 5.0]]
    for i, own in enumerate(gaps):
        weibull = torch.distributions.Weibull(SCALE[i], SHAPE[i])
        events = HAPPENED[i, : len(own)] > 0
        expected = torch.zeros(()).double()
        for gap, event in zip(own, events.tolist(), strict=True):
            x = torch.tensor(gap).double()
            expected += weibull.log_prob(x) if event else -((x / SCALE[i]) ** SHAPE[i])
        expected += (begin[i] / SCALE[i]) ** SHAPE[i]
        assert float(law.log_prob(record.values)[i]) == pytest.approx(float(expected), rel=1e-4)
    total = sum((torch.tensor(gaps[0]).double() / SCALE[0]) ** SHAPE[0])
    total = total - (begin[0] / SCALE[0]) ** SHAPE[0]
    assert float(law.total_hazard(record.values)[0]) == pytest.approx(float(total), rel=1e-4)


@pytest.mark.parametrize("searched", [False, True])
def test_drawn_gaps_have_their_distribution(searched):
    num = 500
    hazard = nlme.weibull_hazard(torch.tensor(2.0).double(), 1.6)
    hazard = nlme.Hazard(hazard.curves) if searched else hazard
    ends = torch.full((num, 5), 100.0).double()
    record = pa.Series(ends, torch.stack([ends, torch.zeros_like(ends)], -1))
    torch.manual_seed(2)
    times = nlme.EventTimes(hazard, record, clock="reset").sample()[..., 0]
    gaps = torch.cat([times[:, :1], times.diff(dim=-1)], -1)
    weibull = torch.distributions.Weibull(torch.tensor(2.0), torch.tensor(1.6))
    error = float(weibull.variance / num) ** 0.5
    assert float((gaps.mean(0) - weibull.mean).abs().max()) < 4 * error


def test_an_unknown_clock_is_refused():
    record = nlme.event_series(torch.ones(2), torch.ones(2))
    with pytest.raises(ModelError, match='"reset"'):
        nlme.EventTimes(nlme.exponential_hazard(0.3), record, clock="gap")
