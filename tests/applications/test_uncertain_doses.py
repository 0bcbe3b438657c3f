"""Doses with the uncertainty of the population, against closed forms.

The logarithm of the clearance of a patient is normal with the mean of an uncertain typical value,
so its variance is the sum of both variances; samples measure it directly, with a known error.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.applications.draw_weights import DrawWeights
from pyro_amortized.applications.uncertain_draws import among_the_data
from pyro_amortized.errors import FitError, SettingError
from pyro_amortized.population.bootstrapping import Bootstrap

from .kit import STEADY

OMEGA, SIGMA, ERROR = 0.3, 0.2, 0.25
TARGET = pa.Target.auc(low=50, window=STEADY, quantity="concentration")
PLAN = nlme.regimen(1, 12, 2)
Z = norm.ppf(0.9)
OPTIONS = {"target": TARGET, "regimen": PLAN, "probability": 0.9, "num_draws": 3000, "seed": 1}


def model(cohort):
    """A sample of the logarithm of clearance."""
    cl = pyro.sample("cl", dist.LogNormal(1.4, 1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(cl.log(), OMEGA))
        y = cohort["y"]
        f = nlme.one_compartment(y.times, cohort.doses, cl=phi.exp(), v=torch.full_like(phi, 50.0))
        pyro.deterministic("concentration", f)
        error = dist.Normal(phi[..., None].expand_as(y.values), SIGMA)
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def known():
    return pa.population(model, {"cl": 4.0}, standard_errors={"cl": 4.0 * ERROR})


def samples(values, ids=None):
    y = torch.tensor(values, dtype=torch.float64).unsqueeze(1)
    zero = torch.zeros_like(y)
    doses = pa.Doses(zero, zero, given=zero.bool())
    labels = {} if ids is None else {"ids": tuple(ids)}
    return pa.Cohort({"y": pa.Series(zero + 1.0, y)}, doses, **labels)


def posterior(y, mean, variance):
    """Mean and variance of a normal quantity after one sample."""
    share = variance / (variance + SIGMA**2)
    return share * y + (1 - share) * mean, variance * (1 - share)


def dose(mean, variance):
    """The dose whose AUC is at least 50 with probability 0.9."""
    return 50 * math.exp(mean + Z * math.sqrt(variance))


def check(result, i, exact):
    amount, error = float(result.amounts[i]), float(result.amount_errors[i])
    assert error < 0.025 * exact
    assert abs(amount - exact) < 4 * error


@pytest.fixture(scope="module")
def fit():
    y = math.log(4.0) + 0.36 * torch.tensor([-1.3, -0.8, -0.2, 0.1, 0.9, 1.3]).double()
    return pa.fit_population(model, samples(y.tolist()), seed=1)


def test_patients_without_samples():
    total = OMEGA**2 + ERROR**2
    both = pa.recommend(known(), None, (10.0, 2000.0), **OPTIONS)
    check(both, 0, dose(math.log(4.0), total))
    assert both.uncertainties == {"1": "population and individuals"}
    assert "population and individuals" in repr(both)
    alone = pa.recommend(known(), None, (10.0, 2000.0), uncertainty="individuals", **OPTIONS)
    check(alone, 0, dose(math.log(4.0), OMEGA**2))
    assert alone.uncertainties == {"1": "individuals"}


def test_ranges_and_losses():
    total, options = OMEGA**2 + ERROR**2, OPTIONS | {"probability": None}
    both = options | {"target": pa.Target.auc(40, 60, window=STEADY, quantity="concentration")}
    listed = pa.recommend(known(), None, [150, 200], **both)
    for place, amount in enumerate((150, 200)):
        ends = [math.log(amount / (4 * x)) / math.sqrt(total) for x in (40, 60)]
        exact, candidates = norm.cdf(ends[0]) - norm.cdf(ends[1]), listed.candidates
        error = float(candidates.probability_error[place, 0])
        assert abs(float(candidates.probability[place, 0]) - exact) < 4 * error < 0.05
    check(pa.recommend(known(), None, (10.0, 2000.0), **both), 0, 4 * math.sqrt(2400))
    options["loss"] = lambda x: (x - 50).square()
    least = pa.recommend(known(), None, (10.0, 2000.0), **options)
    check(least, 0, 200 * math.exp(-1.5 * total))


def test_samples_of_a_new_patient_weight_the_population():
    values = [math.log(6.0), math.log(3.5)]
    result = pa.recommend(known(), samples(values), (10.0, 2000.0), **OPTIONS)
    for i, y in enumerate(values):
        check(result, i, dose(*posterior(y, math.log(4.0), OMEGA**2 + ERROR**2)))


def test_samples_among_the_data_of_a_fit_count_once(fit):
    center, error = float(fit.estimates["cl"].log()), float(fit.covariance[0, 0]) ** 0.5
    assert error == pytest.approx(math.hypot(OMEGA, SIGMA) / math.sqrt(6), rel=0.02)
    seen = pa.recommend(fit, fit.cohort[[0, 5]], (10.0, 2000.0), **OPTIONS)
    values = fit.cohort["y"].values[:, 0].tolist()
    new = samples([values[0], values[5]], ["a", "b"])
    unseen = pa.recommend(fit, new, (10.0, 2000.0), **OPTIONS)
    for i, y in enumerate((values[0], values[5])):
        mean, variance = posterior(y, center, OMEGA**2)
        rest = SIGMA**2 / (OMEGA**2 + SIGMA**2)
        check(seen, i, dose(mean, variance + (rest * error) ** 2))
        check(unseen, i, dose(*posterior(y, center, OMEGA**2 + error**2)))


def test_draws_of_the_population_are_averaged_over(fit):
    """A mixture of normal distributions, one for each replicate."""
    vectors = torch.linspace(1.0, 2.0, 40).double().unsqueeze(1)
    replicates = Bootstrap(fit, vectors, 0, "nonparametric")
    result = pa.recommend(replicates, None, [200, 300], **OPTIONS)
    for place, amount in enumerate((200, 300)):
        ends = (math.log(amount / 50) - vectors[:, 0].numpy()) / OMEGA
        exact, candidates = norm.cdf(ends).mean(), result.candidates
        # All replicates were used, so that only the draws of individuals err.
        assert abs(float(candidates.probability[place, 0]) - exact) < 0.03


def test_models_may_know_their_uncertainty_or_not():
    sure = pa.population(model, {"cl": 4.0})
    result = pa.recommend({"sure": sure, "not": known()}, None, [200, 300], **OPTIONS)
    assert set(result.uncertainties.values()) == {"population and individuals", "individuals"}
    assert "sure: individuals" in repr(result)
    ends = [math.log(1.5) / x for x in (OMEGA, math.hypot(OMEGA, ERROR))]
    exact, error = sum(norm.cdf(x) for x in ends) / 2, float(result.candidates.probability_error[1])
    assert abs(float(result.candidates.probability[1, 0]) - exact) < 4 * error


def test_mistakes_are_named():
    with pytest.raises(SettingError, match="`uncertainty` is 'none'"):
        pa.recommend(known(), None, (10.0, 2000.0), uncertainty="none", **OPTIONS)
    sure = pa.population(model, {"cl": 4.0})
    with pytest.raises(FitError, match="not known"):
        pa.recommend(
            sure, None, (10.0, 2000.0), uncertainty="population and individuals", **OPTIONS
        )


def test_patients_are_found_among_the_data_by_label_and_values(fit):
    values = fit.cohort["y"].values[:, 0].tolist()
    changed = samples([values[0], 0.0, values[2]], ["1", "2", "x"])
    assert among_the_data(changed, fit.cohort).tolist() == [True, False, False]


def test_errors_of_groups_are_those_of_their_sums():
    values = torch.tensor([1.0, 1.0, 3.0, 3.0]).double().unsqueeze(1)
    weights = torch.full((4, 1), 0.25).double()
    grouped = DrawWeights(weights, torch.tensor([0, 0, 1, 1]))
    assert grouped.mean_error(values)[1] == pytest.approx(math.sqrt(2 * 0.5**2))
    assert DrawWeights(weights).mean_error(values)[1] == pytest.approx(0.5)
    assert grouped.inflation(values) == pytest.approx(math.sqrt(2))
