"""Integrals of hazards that rise and fall with every dose, and what is said of their error."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError

DAYS = 6
TIMES = torch.tensor([[30.0, 30.0, 130.0], [7.0, 100.0, 144.0]], dtype=torch.float64)
DOSES = pa.Doses(
    (24.0 * torch.arange(DAYS)).double().expand(2, -1).clone(),
    torch.full((2, DAYS), 100.0).double(),
)


def log_hazard(times, doses=DOSES, link=1.0):
    ka, cl, v = (torch.tensor([x]).double() for x in (1.5, 3.0, 30.0))
    return -5 + link * nlme.one_compartment(times, doses, ka=ka, cl=cl, v=v)


def reference(times):
    """A sum over midpoints of a fine grid, divided at the doses."""
    fine = torch.linspace(0.0, 144.0, 288_001, dtype=torch.float64).expand(len(times), -1)
    parts = log_hazard((fine[:, 1:] + fine[:, :-1]) / 2).exp() * (144.0 / 288_000)
    total = torch.cat([torch.zeros(len(times), 1).double(), parts.cumsum(-1)], -1)
    return total.gather(1, (times * 2000).round().long())


def test_a_hazard_that_follows_doses_is_exact_between_breaks():
    exact = reference(TIMES)
    divided = nlme.integrated_hazard(log_hazard, breaks=DOSES.times)(TIMES)
    torch.testing.assert_close(divided[1], exact, rtol=2e-6, atol=1e-8)
    torch.testing.assert_close(divided[0], log_hazard(TIMES))
    whole = nlme.integrated_hazard(log_hazard)(TIMES[:, -1:])[1]
    assert float((whole / exact[:, -1:] - 1).abs().max()) > 1e-3  # which is why


def test_breaks_may_be_shared_unordered_and_padded():
    shared = torch.tensor([48.0, torch.inf, 24.0, torch.nan, 120.0, 72.0, -1.0, 96.0])
    hazard = nlme.integrated_hazard(log_hazard, breaks=shared)
    expected = nlme.integrated_hazard(log_hazard, breaks=DOSES.times)
    torch.testing.assert_close(hazard(TIMES), expected(TIMES), rtol=1e-9, atol=1e-9)
    with pytest.raises(ModelError, match="one row for each individual"):
        nlme.integrated_hazard(log_hazard, breaks=DOSES.times[:1].repeat(3, 1))(TIMES)
    with pytest.raises(ModelError, match=r"shape \(break,\)"):
        nlme.integrated_hazard(log_hazard, breaks=[24.0])


def test_events_that_recur_need_one_integral():
    """The density is that of the same hazard with curves at every event."""
    happened = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]).double()
    record = nlme.event_series(TIMES, happened, end=150.0)
    begin = torch.tensor([5.0, 2.0]).double()
    integrated = nlme.integrated_hazard(log_hazard, breaks=DOSES.times)
    points = []

    def counted(times):
        points.append(times.shape[-1])
        return log_hazard(times)

    few = nlme.integrated_hazard(counted, breaks=DOSES.times)
    found = nlme.EventTimes(few, record, begin=begin).log_prob(record.values)
    every = nlme.EventTimes(nlme.Hazard(integrated.curves), record, begin=begin)
    torch.testing.assert_close(found, every.log_prob(record.values), rtol=1e-6, atol=1e-8)
    assert points == [3, (DAYS + 2) * 17]


def test_a_scaled_hazard_keeps_what_shows_its_error():
    record = nlme.event_series(TIMES[:, -1], torch.tensor([1.0, 0.0]))
    hazard = nlme.integrated_hazard(log_hazard)
    plain = nlme.EventTimes(hazard, record).quadrature_error(record.values)
    twice = nlme.EventTimes(hazard.scaled(2.0), record).quadrature_error(record.values)
    torch.testing.assert_close(twice, 2 * plain)
    assert float(plain.min()) > 1e-3
    divided = nlme.integrated_hazard(log_hazard, breaks=DOSES.times)
    assert nlme.EventTimes(divided, record).quadrature_error(record.values).max() < 1e-5
    closed = nlme.EventTimes(nlme.exponential_hazard(0.1), record)
    assert closed.quadrature_error(record.values) is None


@pytest.mark.parametrize("divided", [False, True])
def test_a_fit_says_where_an_integral_is_too_coarse(divided):
    def model(cohort):
        base = pyro.sample("base", dist.Normal(-5.0, 1.0))
        omega = pyro.sample("omega", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            b = pyro.sample("b", dist.Normal(base, omega))
            breaks = cohort.doses.times if divided else None
            hazard = nlme.integrated_hazard(
                lambda t: b[..., None] + log_hazard(t, cohort.doses) + 5, breaks=breaks
            )
            event = cohort["event"]
            pyro.sample("event", nlme.EventTimes(hazard, event), obs=event.values)

    num = 20
    one = pa.Doses(*(x[:1].expand(num, -1).clone() for x in (DOSES.times, DOSES.amounts)))
    ends = torch.full((num,), 144.0).double()
    design = pa.Cohort({"event": nlme.event_series(ends, torch.zeros(num))}, doses=one)
    truth = {"base": torch.tensor(-6.0).double(), "omega": torch.tensor(0.3).double()}
    cohort = pa.simulate_population(pa.read_structure(model, design), design, truth, seed=1)
    held = {"omega": truth["omega"]}
    fit = pa.fit_population(model, cohort, fixed=held, seed=1, num_draws=100)
    assert ("the integral of the hazard of 'event' changes -2LL" in fit.message) != divided
