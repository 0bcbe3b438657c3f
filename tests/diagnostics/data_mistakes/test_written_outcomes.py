"""Codes, signs and units of outcomes: what is changed, and ratios of the mean one."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics.data_mistakes.written_data import written_data_checks
from pyro_amortized.diagnostics.data_mistakes.written_outcomes import outcome_alternatives
from tests.diagnostics.linear_weights import right_cohort

NUM = 48


def site_of(num=NUM):
    return {"site": (torch.arange(num) % 4).double()}


def yes_no_program(cohort):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        level = pyro.sample("level", dist.Normal(mean, omega))
        y = cohort["y"]
        law = dist.Bernoulli(logits=level[..., None].expand(y.values.shape))
        pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)


def yes_no(seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.sigmoid(1.8 + 0.5 * torch.randn(NUM, 1, generator=generator)).double()
    values = (torch.rand(NUM, 8, generator=generator).double() < p).double()
    times = torch.arange(8).double().expand(NUM, -1)
    return pa.Cohort({"y": pa.Series(times, values)}, covariates=site_of())


def event_program(cohort):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        frailty = pyro.sample("frailty", dist.Normal(torch.zeros(()).double(), 0.3))
        event = cohort["event"]
        hazard = nlme.weibull_hazard(torch.ones_like(frailty), torch.full_like(frailty, 1.5))
        scaled = hazard.scaled(rate * frailty.exp())
        pyro.sample("event", nlme.EventTimes(scaled, event), obs=event.values)


def events(seed, factor=1.0):
    generator = torch.Generator().manual_seed(seed)
    site = site_of()["site"]
    frailty = torch.exp(0.3 * torch.randn(NUM, generator=generator).double())
    time = (-torch.rand(NUM, generator=generator).double().log() / frailty) ** (1 / 1.5)
    end = torch.where(site == 1, 2.0 * factor, 2.0)
    time = torch.where(site == 1, time * factor, time)
    series = nlme.event_series(torch.minimum(time, end), time < end, end=end)
    return pa.Cohort({"event": series}, covariates={"site": site})


def check_of(program, cohort):
    fit = pa.fit_population(program, cohort, num_starts=1, seed=1)
    return written_data_checks(fit)


def test_yes_and_no_exchanged_at_a_site_are_named():
    cohort = yes_no(1)
    values = cohort["y"].values.clone()
    rows = cohort.covariates["site"] == 1
    values[rows] = 1 - values[rows]
    wrong = pa.Cohort({"y": pa.Series(cohort["y"].times, values)}, covariates=cohort.covariates)
    (check,) = check_of(yes_no_program, wrong)
    assert check.status == "failed"
    assert "where site is 1: the codes 0 and 1 of 'y' are exchanged" in check.words
    (right,) = check_of(yes_no_program, cohort)
    assert right.status == "passed"


def test_times_of_events_in_another_unit_are_named():
    (check,) = check_of(event_program, events(2, factor=7.0))
    assert check.status == "failed"
    assert "where site is 1: the times of 'event' are written 7 times too large" in check.words
    (right,) = check_of(event_program, events(2))
    assert right.status == "passed"


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_density_of_other_units_has_the_mass_one(factor):
    """An alternative's density of the times as written, with its volume, integrates to one."""
    times = torch.linspace(1e-4, 40.0, 400_001, dtype=torch.float64)
    hazard = nlme.weibull_hazard(torch.tensor(1.0).double(), torch.tensor(1.5).double())
    changed = times * factor
    log_rate, cumulative = hazard(changed.unsqueeze(0))
    density = torch.exp(log_rate - cumulative)[0] * factor  # exp(log_volume) of one event
    assert abs(float(torch.trapezoid(density, times)) - 1) < 1e-4


def test_scales_signs_and_units_are_changed():
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(4, (10, 5), generator=generator).double()
    values[0, :4] = torch.tensor([0.0, 3.0, 1.0, 2.0])
    times = torch.arange(5).double().expand(10, -1)
    cohort = pa.Cohort({"y": pa.Series(times, values)})
    scale = list(outcome_alternatives(cohort, {"y": "category"}))[1]
    assert "other direction" in scale.words
    torch.testing.assert_close(scale.cohort["y"].values, 3 - values)
    signed = pa.Cohort({"y": pa.Series(times, values - 1.5)})
    (sign,) = [a for a in outcome_alternatives(signed, {"y": "continuous"}) if "sign" in a.words]
    torch.testing.assert_close(sign.cohort["y"].values, 1.5 - values)
    units = list(
        outcome_alternatives(pa.Cohort({"y": pa.Series(times, values + 1)}), {"y": "continuous"})
    )
    (large,) = [a for a in units if "10 times too large" in a.words]
    torch.testing.assert_close(large.cohort["y"].values, (values + 1) / 10)
    torch.testing.assert_close(
        large.log_volume, torch.full((10,), -5 * torch.tensor(10.0).double().log().item()).double()
    )
    assert [a.kind for a in outcome_alternatives(cohort, {"y": "count"})] == ["copies"] * 2


def test_the_probabilities_of_copies_have_at_most_the_sum_one():
    """Of all series of four yes/no values: what is kept has its own probability."""
    series = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).double()
    times = torch.arange(4).double().expand(16, -1)
    cohort = pa.Cohort({"y": pa.Series(times, series)})
    copies = next(outcome_alternatives(cohort, {"y": "category"}))
    kept, p = copies.cohort["y"], torch.tensor([0.2, 0.7, 0.4, 0.9]).double()
    each = torch.where(kept.values == 1, p, 1 - p)
    density = torch.where(kept.observed, each, 1.0).prod(1) * copies.log_volume.exp()
    assert 0 < float(density.sum()) <= 1
    assert kept.observed[copies.rows.tolist().index(7)].tolist() == [True, True, False, False]


def test_the_density_of_logarithms_has_the_mass_one():
    """Each individual has one value, a point of a grid: the integral is over all of them."""
    grid = torch.linspace(-8.0, 50.0, 58_001, dtype=torch.float64)
    cohort = pa.Cohort({"y": pa.Series(torch.zeros(len(grid), 1).double(), grid.unsqueeze(1))})
    found = [a for a in outcome_alternatives(cohort, {"y": "continuous"}) if "logar" in a.kind]
    assert len(found) == 3
    law = torch.distributions.LogNormal(torch.tensor(0.5).double(), torch.tensor(0.7).double())
    for alternative in found:
        values = alternative.cohort["y"].values[:, 0]
        assert bool(values.isfinite().all())
        inside = values > 0
        density = torch.zeros_like(grid)
        density[inside] = (law.log_prob(values[inside]) + alternative.log_volume[inside]).exp()
        assert abs(float(torch.trapezoid(density, grid)) - 1) < 1e-4
    torch.testing.assert_close(found[0].cohort["y"].values[:9000, 0], grid[:9000].exp())


def test_times_in_another_unit_are_those_of_some_individuals():
    cohort = right_cohort(2)
    times = cohort["y"].times.clone()
    times[:5] *= 60
    mixed = pa.Cohort({"y": pa.Series(times, cohort["y"].values)}, covariates=cohort.covariates)
    found = outcome_alternatives(mixed, {"y": "continuous"})
    (large,) = [
        a for a in found if a.kind == "the unit of times" and "60 times too large" in a.words
    ]
    assert large.rows.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(large.cohort["y"].times, cohort["y"].times[:5])
