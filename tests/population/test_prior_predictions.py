"""Data beside the predictions of the program under its prior, before a fit."""

import pyro
import pyro.distributions as dist
import pytest
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import check_data
from pyro_amortized.model import read_structure
from pyro_amortized.population.prior_predictions import compare_with_prior
from tests.exact import linear_cohort, linear_program

SERIES = "concentration"


def times(cohort, factor, rows=slice(None)):
    values = cohort[SERIES].values.clone()
    values[rows] *= factor
    return cohort.with_values({SERIES: values})


def test_nothing_is_said_about_the_data_of_the_model():
    compared = compare_with_prior(
        read_structure(quickstart.model, quickstart.cohort), quickstart.cohort
    )
    assert compared.words == ""
    for seed in range(5):
        cohort = linear_cohort(num=40, seed=seed)
        assert compare_with_prior(read_structure(linear_program, cohort), cohort).words == ""


@pytest.mark.parametrize("factor", [60.0, 1 / 60, 1000.0])
def test_one_individual_in_another_unit_is_named_and_no_other_one(factor):
    wrong = times(quickstart.cohort, factor, 4)
    check = check_data(quickstart.model, wrong)
    assert check.outside == [wrong.ids[4]]
    assert not check.of_all
    assert "times what the model makes of those of the others" in check.verdict
    assert check_data(quickstart.model, wrong).verdict == check.verdict


def test_all_values_in_another_unit_blame_no_individual():
    check = check_data(quickstart.model, times(quickstart.cohort, 1000))
    assert check.outside == []
    assert "check the units" in check.verdict
    assert (
        "All 12 individuals lie inside" in check_data(quickstart.model, quickstart.cohort).verdict
    )


def test_a_dose_in_another_unit_is_named_beside_the_values():
    doses = quickstart.cohort.doses
    amounts = doses.amounts.clone()
    amounts[2] *= 1000
    cohort = pa.Cohort(
        dict(quickstart.cohort.series),
        doses=pa.Doses(doses.times, amounts),
        covariates=dict(quickstart.cohort.covariates),
        ids=quickstart.cohort.ids,
    )
    check = check_data(quickstart.model, cohort)
    assert check.outside == [cohort.ids[2]]
    assert "its doses are" in check.verdict


def test_a_fit_warns_before_it_begins():
    """Warnings are errors in the tests: this one ends the fit."""
    wrong = times(quickstart.cohort, 1000)
    with pytest.raises(pa.AmortizedWarning, match=r"unusual under the prior.*units"):
        pa.fit_population(quickstart.model, wrong, num_draws=100, num_starts=1)


def test_a_cohort_that_is_too_large_is_left_alone():
    cohort = linear_cohort(num=40, seed=1)
    large = cohort[torch.arange(40).repeat(400)]
    shifted = large.with_values({"y": large["y"].values + 1000})
    assert compare_with_prior(read_structure(linear_program, cohort), shifted).words == ""


def oral_program(cohort):
    """One compartment with absorption, proportional error."""
    center = torch.tensor([1.386, 4.25, 0.0]).double()
    typical = pyro.sample("typical", dist.LogNormal(center, 0.5).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(0.5))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical.log(), omega).to_event(1))
        cl, v, ka = phi.exp().unbind(-1)
        y = cohort["y"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        error = nlme.proportional_error(f, sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def oral_cohort(seed, num_late, factor=1.0):
    """24 individuals; some have one sample after 60 hours, the others six within 12 hours. The
    times of individual 6 are multiplied by a factor.
    """
    generator = torch.Generator().manual_seed(seed)
    effects = 0.3 * torch.randn(24, 3, generator=generator).double()
    cl, v, ka = (torch.tensor([4.0, 70.0, 1.0]).double() * effects.exp()).unbind(1)
    times = torch.tensor([0.5, 1, 2, 4, 8, 12]).double().repeat(24, 1)
    observed = torch.ones_like(times, dtype=torch.bool)
    times[:num_late] += 60.0
    observed[:num_late, 1:] = False
    doses = pa.Doses(torch.zeros(24, 1).double(), torch.full((24, 1), 100.0).double())
    values = nlme.one_compartment(times, doses, ka=ka, cl=cl, v=v)
    times[5] *= factor
    return pa.Cohort({"y": pa.Series(times, values, observed)}, doses)


def test_single_late_samples_are_no_error_of_units():
    """After four half-lives concentrations vary many times as much as early ones."""
    named = [check_data(oral_program, oral_cohort(seed, 2)).outside for seed in range(12)]
    assert sum(map(bool, named)) <= 1


@pytest.mark.parametrize("factor", [60.0, 24.0, 1 / 1440])
def test_times_in_another_unit_are_named_although_they_vary_more(factor):
    assert check_data(oral_program, oral_cohort(1, 0, factor)).outside == ["6"]


class DensityAlone(dist.Normal):
    """A distribution of a user that can be evaluated and not drawn."""

    def sample(self, sample_shape=()):
        raise NotImplementedError

    rsample = sample


def test_a_distribution_that_cannot_be_drawn_is_left_alone():
    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 1.0))
            y = cohort["y"]
            distribution = DensityAlone(phi.unsqueeze(-1).expand(y.values.shape), 0.4)
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    cohort = linear_cohort(num=8, seed=1)
    far = cohort.with_values({"y": cohort["y"].values + 1000})
    assert compare_with_prior(read_structure(model, far), far).words == ""


def test_positive_values_of_a_quantity_that_may_be_negative_are_not_compared_by_logarithms():
    """One individual has a median near zero, all others are far from it."""
    cohort = linear_cohort(num=8, width=6, missing=0.0, seed=2)
    values = cohort["y"].values.abs() + 1.0
    values[3] = 1e-4 * values[3]
    near_zero = cohort.with_values({"y": values})
    assert compare_with_prior(read_structure(linear_program, cohort), near_zero).words == ""


def test_logarithms_of_a_quantity_are_not_compared_by_logarithms():
    """Their medians are positive, and one of them is near zero."""
    cohort = quickstart.cohort
    values = cohort[SERIES].values + 1.0
    values[3] = 0.01 * values[3]
    structure = read_structure(quickstart.model, cohort)
    assert compare_with_prior(structure, cohort.with_values({SERIES: values})).individuals
    values[:, 0] = -0.1
    assert not compare_with_prior(structure, cohort.with_values({SERIES: values})).individuals
