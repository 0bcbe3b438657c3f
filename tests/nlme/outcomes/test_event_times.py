"""Densities of events against closed forms, and simulations against densities."""

import math

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError

NUM = 20_000
RATE = torch.tensor(0.4, dtype=torch.float64)


def design(end=5.0, num=NUM, num_events=1):
    ends = torch.full((num, num_events), end, dtype=torch.float64)
    return pa.Series(ends, torch.stack([ends, torch.zeros_like(ends)], -1))


def test_exact_and_censored_times():
    record = nlme.event_series(torch.tensor([2.0, 3.0]).double(), torch.tensor([1, 0]), end=5.0)
    hazard = nlme.weibull_hazard(torch.tensor([4.0, 4.0]).double(), torch.tensor(2.0).double())
    log_prob = nlme.EventTimes(hazard, record).log_prob(record.values)
    expected = [math.log(2 * 2 / 16) - (2 / 4) ** 2, -((3 / 4) ** 2)]
    torch.testing.assert_close(log_prob, torch.tensor(expected).double())


def test_intervals_left_censoring_and_late_entry():
    lower, upper = torch.tensor([1.0, 0.0, 4.0, 2.0]), torch.tensor([2.0, 3.0, torch.inf, 2.0])
    record, visits = nlme.interval_series(lower.double(), upper.double())
    begin = torch.tensor([0.5, 0.0, 0.0, 1.0]).double()
    law = nlme.EventTimes(nlme.exponential_hazard(RATE), record, visits=visits, begin=begin)
    r = float(RATE)
    expected = [
        math.log(math.exp(-r * 0.5) - math.exp(-r * 1.5)),
        math.log(1 - math.exp(-r * 3)),
        -4 * r,
        math.log(r) - r,
    ]
    torch.testing.assert_close(law.log_prob(record.values), torch.tensor(expected).double())


def test_recurrent_events_stop_at_the_end_or_when_nothing_more_was_recorded():
    times = torch.tensor([[1.0, 2.0, 4.0], [3.0, math.nan, math.nan], [1.0, 2.0, math.nan]])
    happened = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    record = nlme.event_series(times.double(), happened)
    log_prob = nlme.EventTimes(nlme.exponential_hazard(RATE), record).log_prob(record.values)
    r = float(RATE)
    expected = [2 * math.log(r) - 4 * r, -3 * r, 2 * math.log(r) - 2 * r]
    torch.testing.assert_close(log_prob, torch.tensor(expected).double())


def test_an_individual_without_a_record_does_not_count():
    record = nlme.event_series(torch.tensor([2.0, 3.0]).double(), torch.tensor([1, 0]))
    hidden = pa.Series(record.times, record.values, torch.tensor([[[True] * 2], [[False] * 2]]))
    log_prob = nlme.EventTimes(nlme.exponential_hazard(RATE), hidden).log_prob(record.values)
    assert log_prob[1] == 0
    assert log_prob[0] != 0


def survival_of(values, t):
    return float(((values[:, 0, 0] > t) | (values[:, 0, 1] == 0)).double().mean())


HAZARDS = {
    "inverse": nlme.weibull_hazard(torch.tensor(3.0).double(), torch.tensor(1.5).double()),
    "search": nlme.Hazard(
        nlme.weibull_hazard(torch.tensor(3.0).double(), torch.tensor(1.5).double()).curves
    ),
}


@pytest.mark.parametrize("how", HAZARDS)
def test_simulated_times_have_the_survival_function(how):
    torch.manual_seed(0)
    values = nlme.EventTimes(HAZARDS[how], design()).sample()
    assert values.shape == (NUM, 1, 2)
    for t in (0.5, 2.0, 4.9):
        expected = math.exp(-((t / 3) ** 1.5))
        error = math.sqrt(expected * (1 - expected) / NUM)
        assert abs(survival_of(values, t) - expected) < 4 * error
    assert float(values[..., 0].max()) == 5.0
    assert set(values[values[..., 0] == 5.0][:, 1].tolist()) == {0.0}


def test_both_ways_of_drawing_agree_draw_by_draw():
    draws = []
    for hazard in HAZARDS.values():
        torch.manual_seed(1)
        draws.append(nlme.EventTimes(hazard, design(num=500, num_events=3)).sample())
    torch.testing.assert_close(draws[0], draws[1], rtol=1e-6, atol=1e-6)


def test_the_number_of_recurrent_events_is_poisson():
    torch.manual_seed(2)
    values = nlme.EventTimes(HAZARDS["search"], design(num_events=12)).sample()
    number, expected = values[..., 1].sum(-1), (5 / 3) ** 1.5
    assert abs(float(number.mean()) - expected) < 4 * math.sqrt(expected / NUM)
    assert abs(float(number.var()) - expected) < 0.1


def test_simulated_visits_find_the_events():
    torch.manual_seed(3)
    visits = torch.tensor([1.0, 2.0, 4.0]).double().expand(NUM, -1)
    law = nlme.EventTimes(nlme.exponential_hazard(RATE), design(end=4.0), visits=visits)
    values = law.sample()
    shares = {t: math.exp(-0.4 * a) - math.exp(-0.4 * t) for a, t in ((0, 1.0), (1, 2.0), (2, 4.0))}
    for t, share in shares.items():
        found = (values[:, 0, 0] == t) & (values[:, 0, 1] == 1)
        assert abs(float(found.double().mean()) - share) < 4 * math.sqrt(share / NUM)
    # The density of the draws sums to one over what can happen.
    kinds = torch.stack([*[torch.tensor([[t, 1.0]]) for t in shares], torch.tensor([[4.0, 0.0]])])
    few = nlme.EventTimes(nlme.exponential_hazard(RATE), design(4.0, 4), visits=visits[:4])
    assert float(few.log_prob(kinds.double()).exp().sum()) == pytest.approx(1.0)


def test_late_entry_is_simulated_from_the_begin():
    torch.manual_seed(4)
    begin = torch.full((NUM,), 2.0).double()
    values = nlme.EventTimes(HAZARDS["search"], design(), begin=begin).sample()
    assert float(values[..., 0].min()) >= 2.0
    expected = math.exp(-((4 / 3) ** 1.5) + (2 / 3) ** 1.5)
    assert abs(survival_of(values, 4.0) - expected) < 4 * math.sqrt(0.25 / NUM)


def test_other_series_and_arguments_are_refused():
    plain = pa.Series(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ModelError, match=r"\(individual, event, 2\)"):
        nlme.EventTimes(nlme.exponential_hazard(RATE), plain)
    with pytest.raises(ModelError, match="up to 3 events"):
        nlme.EventTimes(
            nlme.exponential_hazard(RATE), design(num=2, num_events=3), visits=torch.ones(2, 1)
        )
    with pytest.raises(ModelError, match="`hazard` is a float"):
        nlme.EventTimes(0.4, design(num=2))


def test_no_density_before_the_entry_and_none_of_a_negative_hazard():
    record = nlme.event_series(torch.tensor([1.0, 2.0]), torch.tensor([1, 0]))
    constant = nlme.exponential_hazard(torch.tensor(0.5))
    late = nlme.EventTimes(constant, record, begin=torch.tensor([1.5, 1.5]))
    assert late.log_prob(record.values).tolist() == [-torch.inf, -0.25]
    at_once = nlme.EventTimes(constant, record, begin=torch.tensor([1.0, 2.0]))
    assert torch.allclose(at_once.log_prob(record.values), torch.tensor([0.5, 1.0]).log())
    negative = nlme.EventTimes(nlme.exponential_hazard(torch.tensor(-0.5)), record)
    assert negative.log_prob(record.values).isnan().all()


def test_rounded_times_are_found_by_their_visit():
    visits = torch.tensor([[0.1, 0.3, 0.6]], dtype=torch.float64)
    times = torch.tensor([0.1 + 0.2], dtype=torch.float64) * (1 + 3e-8)
    record = nlme.event_series(times, torch.tensor([1]))
    found = nlme.EventTimes(nlme.exponential_hazard(2.0), record, visits=visits)
    exact = torch.exp(torch.tensor(-0.2)) - torch.exp(torch.tensor(-0.6))
    assert torch.allclose(found.log_prob(record.values).float(), exact.log(), rtol=1e-5)
    assert not any(x.any() for x in found.impossible(record.values).values())


def test_times_of_zero_are_possible_where_the_hazard_is_finite():
    """An event at time 0 of a constant hazard, a censored time of 0, and two events at once whose
    hazard depends on the time since the begin.
    """
    at_once = nlme.event_series(torch.tensor([0.0, 0.0]).double(), torch.tensor([1.0, 0.0]))
    constant, weibull = nlme.exponential_hazard(0.3), nlme.weibull_hazard(2.0, 1.5)
    late = nlme.event_series(torch.zeros(1).double(), torch.zeros(1))
    twice = nlme.event_series(torch.tensor([[1.0, 1.0]]).double(), torch.ones(1, 2))
    for hazard, record in ((constant, at_once), (weibull, late), (weibull, twice)):
        faults = nlme.EventTimes(hazard, record).impossible(record.values)
        assert not any(bool(x.any()) for x in faults.values())
    assert nlme.EventTimes(constant, at_once).log_prob(at_once.values).tolist() == pytest.approx(
        [float(torch.tensor(0.3).log()), 0.0]
    )
