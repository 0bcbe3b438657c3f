"""What must not change a result: the order of individuals, other individuals in the cohort, rows
that were not recorded, fill values, precision, the size of a batch, the zero of time.
"""

import pyro
import pyro.distributions as dist
import pytest
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized.model import structure as model_module
from tests.exact import TRUTH, exact_log_marginal, linear_program

NUM = 12
POPULATION = {
    "typical": torch.tensor([0.46, 1.0, 3.45]),
    "omega": torch.tensor([0.6, 0.25, 0.15]),
    "sigma": torch.tensor(0.7),
}


@pytest.fixture(scope="module")
def few(linear):
    return linear[:NUM]


@pytest.fixture(scope="module")
def draws(few, linear_guide):
    """Given draws, so that scores can be compared to rounding."""
    return pa.sample_individuals(
        linear_program, few, TRUTH, guide=linear_guide, num_draws=200, seed=1
    )


def density(guide, cohort, draws):
    """Both parts together, shape (draw, individual)."""
    density_parts = guide.structure.log_density(cohort, draws, TRUTH)
    return density_parts.observation + density_parts.individual


def posterior(guide, cohort, draws):
    """log q of given draws, shape (draw, individual)."""
    return guide.individual_posterior(cohort, TRUTH).log_prob(draws)


@pytest.mark.parametrize("what", [density, posterior])
def test_permuting_individuals_permutes_the_answers(what, few, draws, linear_guide):
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(1))
    here = what(linear_guide, few, draws.unconstrained)
    there = what(linear_guide, few[order], draws.unconstrained[:, order])
    assert torch.allclose(here[:, order], there, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("what", [density, posterior])
def test_splitting_a_cohort_splits_the_answers(what, few, draws, linear_guide):
    together = what(linear_guide, few, draws.unconstrained)
    for rows in (slice(0, 5), slice(5, NUM)):
        part = what(linear_guide, few[rows], draws.unconstrained[:, rows])
        assert torch.allclose(together[:, rows], part, rtol=1e-9, atol=1e-9)


def widened(cohort):
    """Unrecorded rows: two in front, one between, three behind, with times of their own."""
    y = cohort["y"]
    first, last = y.times[:, :1], y.times[:, -1:]
    middle = (y.times[:, 3:4] + y.times[:, 4:5]) / 2
    parts = [first, first, y.times[:, :4], middle, y.times[:, 4:], last, last + 1, last + 2]
    times = torch.cat(parts, 1)
    blank = torch.full((len(cohort), 1), 77.0, dtype=torch.float64)
    values = [blank, blank, y.values[:, :4], blank, y.values[:, 4:], blank, blank, blank]
    no, yes = torch.zeros(len(cohort), 1).bool(), y.observed
    observed = torch.cat([no, no, yes[:, :4], no, yes[:, 4:], no, no, no], 1)
    return pa.Cohort({"y": pa.Series(times, torch.cat(values, 1), observed)}, ids=cohort.ids)


def refilled(cohort, fill):
    """Other values where nothing was recorded."""
    y = cohort["y"]
    values = torch.where(y.observed, y.values, torch.full_like(y.values, fill))
    return pa.Cohort({"y": pa.Series(y.times, values, y.observed)}, ids=cohort.ids)


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), -99.0, 1e300])
def test_fill_values_do_not_matter(fill, few, draws, linear_guide):
    for what in (density, posterior):
        here = what(linear_guide, few, draws.unconstrained)
        there = what(linear_guide, refilled(few, fill), draws.unconstrained)
        assert torch.equal(here, there)


def test_unrecorded_rows_do_not_matter_to_the_density(few, draws, linear_guide):
    here = density(linear_guide, few, draws.unconstrained)
    there = density(linear_guide, widened(few), draws.unconstrained)
    assert torch.allclose(here, there, rtol=1e-12, atol=1e-12)


def test_unrecorded_rows_leave_the_marginal_likelihood(few, linear_guide):
    """The guide reads these rows, because a missing sample is information.

    The corrected likelihood does not depend on them.
    """
    exact = exact_log_marginal(few, TRUTH)
    for cohort in (few, widened(few)):
        likelihood = pa.marginal_likelihood(
            linear_program, cohort, TRUTH, guide=linear_guide, num_draws=2000, seed=1
        )
        z = (likelihood.log_likelihood - exact) / likelihood.mc_error.clamp(min=1e-3)
        assert z.abs().max() < 4.5


def test_single_precision_changes_rounding_alone(few, draws, linear_guide):
    rounded = few.to(dtype=torch.float32)
    for what in (density, posterior):
        here = what(linear_guide, few, draws.unconstrained)
        there = what(linear_guide, rounded, draws.unconstrained.float())
        assert torch.allclose(here, there.double(), rtol=1e-4, atol=1e-3)


def test_the_size_of_a_batch_does_not_matter(few, draws, linear_guide, monkeypatch):
    together = density(linear_guide, few, draws.unconstrained)
    monkeypatch.setattr(model_module, "CALLS", model_module.CallSettings(100))
    assert torch.allclose(together, density(linear_guide, few, draws.unconstrained), rtol=1e-12)


def test_the_zero_of_time_does_not_matter_where_the_model_counts_from_the_dose():
    cohort = quickstart.cohort
    y, doses = cohort["concentration"], cohort.doses
    moved = pa.Cohort(
        {"concentration": pa.Series(y.times + 24.0, y.values, y.observed)},
        doses=pa.Doses(doses.times + 24.0, doses.amounts, given=doses.given),
        covariates=dict(cohort.covariates),
    )
    structure = pa.read_structure(quickstart.model, cohort)
    generator = torch.Generator().manual_seed(1)
    draws = structure.draw_individuals(cohort, structure.check_population(POPULATION), 5, generator)
    here, there = (structure.log_density(c, draws, POPULATION) for c in (cohort, moved))
    assert torch.allclose(here.observation, there.observation, rtol=1e-9, atol=1e-9)


def test_minibatches_score_as_the_whole(linear, linear_guide):
    """The score of an individual does not depend on the others, within its error."""
    together = pa.marginal_likelihood(linear_program, linear, TRUTH, guide=linear_guide, seed=1)
    for rows in (slice(0, 7), slice(7, 8), slice(8, 40)):
        part = pa.marginal_likelihood(
            linear_program, linear[rows], TRUTH, guide=linear_guide, seed=2
        )
        error = (together.mc_error[rows] ** 2 + part.mc_error**2).sqrt().clamp(min=1e-3)
        z = (together.log_likelihood[rows] - part.log_likelihood) / error
        assert z.abs().max() < 4.5


def test_relabelled_channels_of_one_distribution_do_not_matter():
    """Two channels exchanged in the data and in the program."""

    def program(order):
        def model(cohort):
            with pyro.plate("individual", len(cohort)):
                phi = pyro.sample("phi", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                y = cohort["y"]
                mean = phi[:, None, order] + 0 * y.values
                distribution = dist.Normal(mean, torch.tensor([0.5, 2.0])[order]).mask(y.observed)
                pyro.sample("y", distribution.to_event(2), obs=y.values)

        return model

    generator = torch.Generator().manual_seed(3)
    values = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    observed = torch.rand(4, 3, 2, generator=generator) < 0.7
    times = torch.arange(3.0).double().expand(4, -1)
    draws = torch.randn(6, 4, 2, generator=generator, dtype=torch.float64)
    densities = []
    for order in ([0, 1], [1, 0]):
        cohort = pa.Cohort({"y": pa.Series(times, values[..., order], observed[..., order])})
        structure = pa.read_structure(program(order), cohort)
        densities.append(structure.log_density(cohort, draws, {}).observation)
    assert torch.allclose(*densities, rtol=1e-12)
