"""Likelihood ratios of alternatives to the data are those of the closed form."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics.data_mistakes.written_alternatives import written_alternatives
from pyro_amortized.diagnostics.data_mistakes.written_exchanges import written_exchanges
from pyro_amortized.diagnostics.data_mistakes.written_likelihoods import (
    compare_alternatives,
    exact_gains,
)
from pyro_amortized.diagnostics.variables.used_covariates import names_of_used_covariates
from tests.diagnostics.linear_weights import (
    exact_log_likelihood,
    program,
    right_cohort,
)


@pytest.fixture(scope="module")
def fit():
    return pa.fit_population(program, right_cohort(1), seed=1)


@pytest.fixture(scope="module")
def compared(fit):
    alternatives = [
        *written_alternatives(fit.cohort, ["weight"]),
        *written_exchanges(fit.cohort, ["weight"], ["y"]),
    ]
    with torch.no_grad():
        return compare_alternatives(fit, fit.cohort, alternatives)


def test_covariates_that_change_the_density_are_known(fit):
    with torch.no_grad():
        assert names_of_used_covariates(fit.individuals) == ["weight"]


def test_gains_are_those_of_the_closed_form(fit, compared):
    before = exact_log_likelihood(fit.cohort, fit.estimates)
    kinds = set()
    for index, alternative in enumerate(compared.alternatives):
        exact = exact_log_likelihood(alternative.cohort, fit.estimates) - before[alternative.rows]
        gain = compared.gain(index)
        # Normal approximations are exact here; what is far less likely is not improved to the end.
        near = exact > -5
        torch.testing.assert_close(gain[near], exact[near], atol=0.02, rtol=0)
        assert bool((gain[~near] < -4.9).all())
        kinds.add(alternative.kind)
    of_neighbours = {"values of neighbours", "exchanged covariates", "rows"}
    assert kinds == {"the unit of weight", "columns", "samples", "order"} | of_neighbours


def test_gains_by_importance_sampling_are_those_of_the_closed_form(fit, compared):
    index = next(i for i, a in enumerate(compared.alternatives) if a.kind == "columns")
    alternative, places = compared.alternatives[index], torch.arange(5)
    exact = exact_log_likelihood(alternative.cohort[places], fit.estimates)
    exact -= exact_log_likelihood(fit.cohort, fit.estimates)[alternative.rows[places]]
    gains = exact_gains(fit, alternative, places, seed=1)
    torch.testing.assert_close(gains, exact, atol=0.15, rtol=0)


def test_scores_are_those_of_the_closed_form(fit, compared):
    vector = fit.vector.clone().requires_grad_()
    population = fit.structure.constrain_population(vector)
    exact = torch.stack(
        [
            torch.autograd.grad(x, vector, retain_graph=True)[0]
            for x in exact_log_likelihood(fit.cohort, population)
        ]
    )
    torch.testing.assert_close(compared.written.scores, exact, atol=2e-2, rtol=1e-2)


def absorbed(cohort):
    """One compartment with absorption; clearance and volume vary, too."""
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.4, 1.2, 3.6]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["y"]
        prediction = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        noise = dist.Normal(prediction, 0.15 * prediction).mask(y.observed).to_event(1)
        pyro.sample("y", noise, obs=y.values)


def curves(phi, times):
    ka, cl, v = phi.exp().unsqueeze(-1).unbind(-2)
    rate = cl / v
    return 100 * ka / (v * (ka - rate)) * (torch.exp(-rate * times) - torch.exp(-ka * times))


def test_modes_far_from_those_of_the_data_as_written_are_reached():
    """Records in reverse order look like a slow absorption; the right order has its mode far away.

    The likelihoods are compared with the mean over draws from the population.
    """
    generator = torch.Generator().manual_seed(1)
    times = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0]).double()
    normal = torch.randn(24, 10, generator=generator).double()
    phi = torch.tensor([0.4, 1.2, 3.6]) + torch.tensor([0.4, 0.25, 0.2]) * normal[:, :3]
    values = curves(phi, times) * (1 + 0.15 * normal[:, 3:]).clamp(min=0.1)
    values[:8] = values[:8].flip(1)
    doses = pa.Doses(times=torch.zeros(24, 1), amounts=torch.full((24, 1), 100.0))
    cohort = pa.Cohort({"y": pa.Series(times.expand(24, -1), values)}, doses)
    fit = pa.fit_population(absorbed, cohort, num_starts=1, seed=1)
    (order,) = [a for a in written_exchanges(fit.cohort, [], ["y"]) if a.kind == "order"]
    with torch.no_grad():
        gain = compare_alternatives(fit, fit.cohort, [order]).gain(0)
    draws = torch.randn(100_000, 1, 3, generator=generator).double()
    points = fit.estimates["typical"] + fit.estimates["omega"] * draws

    def exact(data):
        prediction = curves(points, times).clamp(min=1e-9)
        law = torch.distributions.Normal(prediction, 0.15 * prediction)
        return law.log_prob(data.values).sum(-1).logsumexp(0)

    expected = exact(order.cohort["y"]) - exact(fit.cohort["y"])
    near = expected > -5
    assert int(near.sum()) >= 8
    # Room for skewed posteriors, which are not normal; a mode that is not reached costs far more.
    torch.testing.assert_close(gain[near], expected[near], atol=2.0, rtol=0)
