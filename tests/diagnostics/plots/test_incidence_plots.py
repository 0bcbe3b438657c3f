"""Cumulative incidences against counting, and against the closed form of constant hazards."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots
from pyro_amortized.diagnostics.plots.incidence_plots import incidence
from pyro_amortized.errors import CohortError, SettingError

RATES = (0.3, 0.1)


def test_without_censoring_it_is_the_share_of_the_individuals():
    generator = torch.Generator().manual_seed(1)
    times = torch.randint(1, 8, (50,), generator=generator).double()  # many at one time
    causes = torch.randint(1, 4, (50,), generator=generator)
    values = torch.stack([times, torch.ones(50).double()], -1).unsqueeze(1)
    grid = torch.arange(9.0).double()
    for number in (1, 2, 3):
        expected = ((causes == number) & (times <= grid.unsqueeze(1))).double().mean(1)
        torch.testing.assert_close(incidence(values, causes, number, grid), expected)


def test_censored_constant_hazards_have_their_closed_incidence():
    generator, num = torch.Generator().manual_seed(2), 4000
    waits = -torch.rand(num, 3, generator=generator).double().log() / torch.tensor([*RATES, 0.2])
    first, which = waits.min(1)
    status = (which < 2).double()
    values = torch.stack([first, status], -1).unsqueeze(1)
    causes = torch.where(which < 2, which + 1, 0)
    grid = torch.tensor([1.0, 3.0]).double()
    for number, rate in enumerate(RATES, 1):
        share = rate / sum(RATES)
        expected = share * (1 - torch.exp(-sum(RATES) * grid))
        found = incidence(values, causes, number, grid)
        assert float((found - expected).abs().max()) < 4 * math.sqrt(0.25 / num)
    together = sum(incidence(values, causes, k, grid) for k in (1, 2))
    torch.testing.assert_close(together, 1 - plots.event_plots.survival(values, None, grid))


def program(cohort):
    typical = pyro.sample("typical", dist.Normal(0.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, 0.3))
        event, cause = cohort["event"], cohort["cause"]
        hazards = [nlme.exponential_hazard(rate * b.exp()) for rate in RATES]
        either = pyro.sample(
            "event", nlme.EventTimes(hazards[0] + hazards[1], event), obs=event.values
        )
        law = nlme.cause_of_event(either, *hazards).mask(cause.observed).to_event(1)
        pyro.sample("cause", law, obs=cause.values)


@pytest.fixture(scope="module")
def posteriors():
    ends = torch.full((60,), 5.0).double()
    cause = pa.Series(ends.unsqueeze(-1), torch.zeros(60, 1).double())
    arm = {"arm": torch.arange(60.0) % 2}
    design = pa.Cohort(
        {"event": nlme.event_series(ends, torch.zeros(60)), "cause": cause}, None, arm
    )
    truth = {"typical": torch.tensor(0.0).double()}
    structure = pa.read_structure(program, design)
    cohort = pa.simulate_population(structure, design, truth, seed=1)
    observed = cohort["cause"].observed.clone()
    observed[(cohort["event"].values[:, 0, 1] > 0).nonzero()[0]] = False
    return pa.sample_individuals(
        program, cohort.with_observed({"cause": observed}), truth, num_draws=50
    )


def test_the_figure_has_a_panel_for_each_cause(posteriors):
    figure = plots.cumulative_incidences(posteriors, names=["death", "relapse"], num_simulations=20)
    assert [ax.get_title() for ax in figure.axes] == ["death", "relapse", "cause not recorded"]
    data, (band,) = figure.axes[0].lines[0].get_ydata(), figure.axes[0].collections
    edges = band.get_paths()[0].vertices[:, 1]
    assert edges.min() <= data[-1] <= edges.max()  # the data are of the model
    assert not figure.axes[2].collections
    arms = plots.cumulative_incidences(posteriors, stratify="arm", num_simulations=5)
    assert "cause 1, arm = 0" in [ax.get_title() for ax in arms.axes]
    for ax in [*figure.axes, *arms.axes]:  # the axis of all panels shows the largest of them
        low, high = ax.get_ylim()
        assert low == 0
        assert all(high >= line.get_ydata().max() for line in ax.lines)


def test_what_is_lacking_is_named(posteriors):
    with pytest.raises(SettingError, match="2 causes"):
        plots.cumulative_incidences(posteriors, names=["death"], num_simulations=5)
    with pytest.raises(CohortError, match="The causes of 'event' are not known"):
        plots.cumulative_incidences(posteriors, cause="death", num_simulations=5)
