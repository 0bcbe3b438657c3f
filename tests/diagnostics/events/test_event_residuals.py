"""Residuals and figures of events, counts and categories."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import diagnose, event_residuals, plots, report, residuals
from pyro_amortized.diagnostics.events.event_residuals import event_checks
from pyro_amortized.diagnostics.plots.event_plots import mean_events, survival
from pyro_amortized.errors import CohortError, SettingError
from tests import outcome_models as om

WEIBULL = {
    n: torch.tensor(x).double()
    for n, x in (("scale", 2.0), ("shape", 1.5), ("effect", 0.5), ("omega", 0.5))
}


def individuals_at(model, cohort, truth):
    return pa.sample_individuals(model, cohort, truth, num_draws=200, seed=1)


@pytest.fixture(scope="module")
def deaths():
    cohort = om.simulated(om.weibull_death, om.event_design(150, end=6.0), WEIBULL, seed=1)
    return individuals_at(om.weibull_death, cohort, WEIBULL)


def test_residuals_of_the_right_model(deaths):
    r = event_residuals(deaths, seed=1)
    assert event_checks(r, deaths.cohort)[0].status == "passed"
    assert abs(float(r.martingale.sum())) < 4 * float(r.cox_snell.sum()) ** 0.5
    torch.testing.assert_close(r.martingale, r.num_events - r.cox_snell)
    again = event_residuals(deaths, seed=1)
    assert torch.equal(r.pd, again.pd)
    assert next(iter(r.table().columns)) == "ID"


def test_residuals_of_a_wrong_hazard_fail(deaths):
    wrong = WEIBULL | {"shape": torch.tensor(0.6).double()}
    r = event_residuals(individuals_at(om.weibull_death, deaths.cohort, wrong), seed=1)
    assert event_checks(r, deaths.cohort)[0].status == "failed"


def test_p_values_of_the_checks_are_not_too_small():
    """Of 20 cohorts of the right model, hardly any asks for a look."""
    small = 0
    for seed in range(20):
        cohort = om.simulated(om.weibull_death, om.event_design(60, 6.0), WEIBULL, seed=seed)
        found = event_residuals(individuals_at(om.weibull_death, cohort, WEIBULL))
        small += any(check.status != "passed" for check in event_checks(found, cohort))
    assert small <= 2


def _with(cohort, change, **covariates):
    """Other times of the event, and more covariates."""
    values = cohort["death"].values.clone()
    change(values[:, 0])
    series = nlme.event_series(
        values[:, 0, 0], values[:, 0, 1] > 0, end=cohort["death"].times[:, 0]
    )
    return pa.Cohort({"death": series}, covariates={**cohort.covariates, **covariates})


def test_a_site_whose_events_are_early_is_named(deaths):
    site = (torch.arange(150) % 3 == 1).double()

    def change(events):
        events[site == 1, 0] /= 3

    cohort = _with(deaths.cohort, change, site=site)
    found = event_residuals(individuals_at(om.weibull_death, cohort, WEIBULL), seed=1)
    check = event_checks(found, cohort)[1]
    assert check.status == "failed"
    assert "earlier" in check.words
    assert "where site is 1 than where it is 0" in check.words


def test_hazards_that_are_not_proportional_are_named(deaths):
    """In a group the events are very early, or do not happen until the end."""
    group = (torch.arange(150) % 3 == 1).double()

    def change(events):
        own = group == 1
        middle = events[own, 0].median()
        times = middle * (events[own, 0] / middle) ** 4
        events[own, 1] = torch.where(times < 6.0, events[own, 1], 0.0)
        events[own, 0] = times.clamp(max=6.0)

    cohort = _with(deaths.cohort, change, group=group)
    found = event_residuals(individuals_at(om.weibull_death, cohort, WEIBULL), seed=1)
    check = event_checks(found, cohort)[1]
    assert check.status == "failed"
    assert "the course of the hazard differs where group is 1" in check.words


def test_kaplan_meier_with_ties_and_censoring():
    values = torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]], [[2.0, 1.0]], [[3.0, 0.0]]])
    grid = torch.tensor([0.9, 1.0, 2.0, 3.0])
    share = survival(values, torch.ones(4, 1).bool(), grid)
    np.testing.assert_allclose(share, [1.0, 0.75, 0.375, 0.375])


def test_figures_of_events(deaths):
    assert isinstance(plots.visual_predictive_check(deaths, num_simulations=20), Figure)
    assert isinstance(plots.event_curves(deaths, stratify="arm", num_simulations=20), Figure)
    assert isinstance(plots.event_errors(deaths), Figure)
    with pytest.raises(SettingError, match="check of events"):
        plots.visual_predictive_check(deaths, log=True)
    with pytest.raises(CohortError, match="cannot be shown"):
        plots.individual_fits(deaths)
    with pytest.raises(CohortError, match="has no events"):
        plots.event_curves(deaths, series="y")


@pytest.mark.parametrize(
    "name", ["poisson", "zero_inflated", "ordered", "markov_plain", "markov_chain"]
)
def test_residuals_and_figures_of_counts_and_categories(name):
    model, truth = om.MODELS[name], om.truth_of(name)
    cohort = om.simulated(model, om.trend_design(80), truth, seed=1)
    individuals = individuals_at(model, cohort, truth)
    r = residuals(individuals, num_simulations=300, seed=1)
    assert abs(float(r.npde.mean())) < 4 / len(r.npde) ** 0.5
    assert 0.8 < float(r.npde.std()) < 1.2
    assert bool(r.individual.isfinite().all())
    assert isinstance(plots.visual_predictive_check(individuals, num_simulations=20), Figure)
    assert isinstance(plots.category_shares(individuals, num_simulations=20), Figure)
    assert isinstance(plots.individual_fits(individuals, num_draws=20, max_individuals=4), Figure)


def test_a_report_of_a_joint_model(tmp_path):
    cohort = om.simulated(om.joint, om.joint_design(100), om.JOINT, seed=3)
    fit = pa.fit_population(om.joint, cohort, seed=1)
    found = diagnose(fit)
    assert found.passed, found.verdict
    assert found.events[0].series == "dropout"
    report(fit, tmp_path / "report.html", diagnosis=found)
    page = (tmp_path / "report.html").read_text()
    assert "Individuals without dropout" in page
    assert f"{fit.structure.num_observations(cohort)} observations" in str(fit.summary())


def test_the_check_of_a_marker_knows_of_its_dropout():
    """Simulated markers end at their own dropout, else the band would lie below the data."""
    cohort = om.simulated(om.joint, om.joint_design(200), om.JOINT, seed=5)
    r = residuals(individuals_at(om.joint, cohort, om.JOINT), series="marker", seed=1)
    late = r.times >= 4
    assert abs(float(r.npde[late].mean())) < 4 / float(late.sum()) ** 0.5


def test_individuals_that_enter_late_are_at_risk_from_their_entry_on():
    generator = torch.Generator().manual_seed(1)
    draws = -torch.rand(4_000, generator=generator, dtype=torch.float64).log()
    begin = torch.rand(4_000, generator=generator, dtype=torch.float64)
    begin[:500] = 0.0
    seen = draws > begin  # an event before the entry is not seen
    values = torch.stack([draws[seen], torch.ones(int(seen.sum())).double()], -1).unsqueeze(1)
    known = torch.ones(values.shape[:2]).bool()
    grid = torch.tensor([0.2, 0.5, 1.0, 2.0]).double()
    right = survival(values, known, grid, begin[seen])
    assert torch.allclose(right, torch.exp(-grid), atol=0.04)
    assert (survival(values, known, grid) - torch.exp(-grid)).abs().max() > 0.05
    first = mean_events(values, known, grid, begin[seen])  # the cumulative hazard, as all end
    assert torch.allclose(first, grid, rtol=0.1)


def test_ties_are_one_factor():
    values = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [2.0, 1.0]]).double().unsqueeze(1)
    grid = torch.tensor([1.0, 2.0]).double()
    assert survival(values, torch.ones(4, 1).bool(), grid).tolist() == [0.5, 0.0]
