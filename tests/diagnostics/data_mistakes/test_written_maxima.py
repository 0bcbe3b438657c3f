"""Mistakes in many individuals at their own population, beside closed forms."""

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.data_mistakes.written_alternatives import (
    LEVEL,
    written_alternatives,
)
from pyro_amortized.diagnostics.data_mistakes.written_data import written_data_checks
from pyro_amortized.diagnostics.data_mistakes.written_likelihoods import compare_alternatives
from pyro_amortized.diagnostics.data_mistakes.written_maxima import at_maximum, expected_gain
from tests.diagnostics.linear_weights import (
    exact_maximum,
    program,
    right_cohort,
    with_covariates,
)

NUM = 48
WRONG = torch.arange(NUM) % 3 == 0  # whose labels are wrong


def test_the_ratio_at_its_own_population_is_that_of_the_maxima():
    """The columns of weights and ages were exchanged: undone, the population moves far."""
    right = right_cohort(1)
    known = right.covariates
    cohort = with_covariates(right, weight=known["age"], age=known["weight"])
    fit = pa.fit_population(program, cohort, num_starts=1, seed=1)
    alternatives = [a for a in written_alternatives(cohort, ["weight"]) if a.kind == "columns"]
    exact = exact_maximum(right, fit.estimates) - exact_maximum(cohort, fit.estimates)
    weights = torch.ones(1, len(cohort)).double()
    with torch.no_grad():
        compared = compare_alternatives(fit, fit.cohort, alternatives)
        found = at_maximum(fit, compared, 0, weights).ratio
        at_estimates = float(compared.gain(0).sum())
        assert expected_gain(fit, compared, 0, weights) >= at_estimates
    assert exact > at_estimates + 2
    # It may stop before the maximum, which makes less of a mistake, never more.
    assert exact - 5 < found < exact + 0.05


def two_groups(cohort):
    """Means of individuals in two groups, with three values each."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    effect = pyro.sample("effect", dist.Normal(0.0, 5.0))
    omega = pyro.sample("omega", dist.HalfNormal(5.0))
    with pyro.plate("individual", len(cohort)):
        center = mean[..., None] + effect[..., None] * cohort.covariates["group"]
        level = pyro.sample("level", dist.Normal(center, omega[..., None]))
        y = cohort["y"]
        pyro.sample(
            "y", dist.Normal(level[..., None], 0.5).mask(y.observed).to_event(1), obs=y.values
        )


def groups(seed, distance, wrong):
    generator = torch.Generator().manual_seed(seed)
    group = (torch.arange(NUM) % 2).double()
    level = distance * group + torch.randn(NUM, generator=generator).double()
    values = level[:, None] + 0.5 * torch.randn(NUM, 3, generator=generator).double()
    times = torch.arange(3).double().expand(NUM, -1)
    written = torch.where(wrong, 1 - group, group)
    return pa.Cohort({"y": pa.Series(times, values)}, covariates={"group": written})


def test_labels_that_are_wrong_at_random_are_found_with_their_individuals():
    fit = pa.fit_population(two_groups, groups(1, 6.0, WRONG), num_starts=1, seed=1)
    alternatives = written_alternatives(fit.cohort, ["group"])
    (labels,) = [a for a in alternatives if a.kind.startswith(LEVEL)]
    shares = torch.tensor([0.05, 0.15, 0.4]).double()[:, None].expand(-1, NUM)
    with torch.no_grad():
        compared = compare_alternatives(fit, fit.cohort.to(dtype=torch.float64), [labels])
        near = at_maximum(fit, compared, 0, shares)
        found = at_maximum(fit, compared, 0, shares, split=True)
    assert near.ratio < 3 < 12 < found.ratio
    right = ((found.probability > 0.5) == WRONG[labels.rows]).double().mean()
    assert float(right) > 0.95
    (check,) = written_data_checks(fit)
    assert check.status == "failed"
    assert "in about 16 of 48 individuals" in check.words or "15 of 48" in check.words


def test_right_labels_pass():
    fit = pa.fit_population(two_groups, groups(2, 6.0, WRONG & False), num_starts=1, seed=1)
    (check,) = written_data_checks(fit, beside=True)
    assert check.status == "passed"
