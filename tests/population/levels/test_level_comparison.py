"""What follows a fit with a level, against the closed likelihood of a linear model: profiles,
likelihood ratios, derived quantities, and the checks of its individuals.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import diagnose
from pyro_amortized.errors import AmortizedError, FitError
from pyro_amortized.numerics.maximization import maximize, observed_information

from ..test_level_fit import NUM_SITES, closed_log_likelihood, linear, sites

NAMES = ("mu", "omega", "sigma", "tau")


def without_level(cohort):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu, omega))
        y = cohort["y"]
        error = dist.Normal(b[..., None].expand(y.values.shape), sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def fit():
    return pa.fit_levels(linear, sites(linear, num_each=4), num_draws=60, seed=1)


@pytest.fixture(scope="module")
def exact(fit):
    """The closed log likelihood as a function of coordinates, and its maximum."""

    def function(z):
        return closed_log_likelihood(fit.cohort, [z[0], *z[1:].exp()])

    return function, maximize(function, torch.tensor([1.0, -0.7, -1.2, -0.5]).double())


def exact_bound(exact, k, side):
    """Where twice the fall of the closed profile is 3.84, and the standard error."""
    function, best = exact
    keep = torch.tensor([j for j in range(4) if j != k])
    error = float(torch.linalg.inv(observed_information(function, best.vector))[k, k].sqrt())

    def excess(z):
        held = torch.tensor(z, dtype=torch.float64)

        def others(x):
            vector = best.vector.index_put((keep,), x).index_put((torch.tensor([k]),), held)
            return function(vector)

        fall = 2 * (best.value - maximize(others, best.vector[keep]).value)
        return fall - scipy.special.chdtri(1, 0.05)

    center = float(best.vector[k])
    return scipy.optimize.brentq(excess, center, center + 5 * side * error, xtol=1e-3), error


@pytest.mark.parametrize("name", [pytest.param("mu", marks=pytest.mark.slow), "tau"])
def test_a_profile_has_the_exact_bounds(fit, exact, name):
    profile = pa.profile_likelihood(fit, name, progress=False)
    k = NAMES.index(name)
    for side, value in ((-1, profile.lower), (1, profile.upper)):
        bound, error = exact_bound(exact, k, side)
        found = value if name == "mu" else math.log(value)
        assert abs(found - bound) < 0.03 * error
    assert profile.minus2ll.min() == 0.0
    assert bool((profile.values.diff() > 0).all())


def test_a_level_is_tested_by_the_likelihood_ratio(fit, exact):
    plain = pa.fit_population(without_level, fit.cohort, seed=1)
    test = pa.likelihood_ratio_test(plain, fit)
    assert test.degrees_of_freedom == 1

    def no_level(z):
        return closed_log_likelihood(fit.cohort, [z[0], *z[1:].exp(), torch.tensor(0.0)])

    smaller = maximize(no_level, torch.tensor([1.0, -0.7, -1.2]).double())
    statistic = 2 * (exact[1].value - smaller.value)
    assert abs(test.statistic - statistic) < 4 * test.mc_error + 0.02
    assert test.p_value == pytest.approx(float(scipy.special.chdtrc(1, statistic)), rel=0.05)
    table = pa.compare({"plain": plain, "sites": fit})
    rows = {row.name: row for row in table.rows}
    best = "sites" if statistic > 2 else "plain"
    assert table.rows[0].name == best
    assert rows["plain"].difference - rows["sites"].difference == pytest.approx(test.statistic)
    assert fit.bic.individuals == pytest.approx(fit.minus2ll + 4 * math.log(4 * NUM_SITES))


def test_two_levels_are_compared(fit):
    fixed = {"tau": torch.tensor(0.3).double()}
    held = pa.fit_levels(linear, fit.cohort, fixed=fixed, num_draws=60, seed=1)
    test = pa.likelihood_ratio_test(held, fit)
    assert test.statistic == pytest.approx(held.minus2ll - fit.minus2ll)
    other = pa.fit_population(without_level, sites(linear, num_each=4, seed=2), seed=1)
    with pytest.raises(FitError, match="different data"):
        pa.likelihood_ratio_test(other, fit)
    with pytest.raises(FitError, match="no parameter 'tau' that was estimated"):
        pa.profile_likelihood(held, "tau")
    with pytest.raises(FitError, match=r"no parameter 'u\[0\]' that was estimated"):
        pa.profile_likelihood(fit, "u[0]")


def test_a_function_of_the_parameters_has_an_error(fit):
    value, error = fit.derived(lambda p: p["tau"].log())
    assert float(value) == pytest.approx(math.log(float(fit.estimates["tau"])))
    place = fit.structure.population_names.index("tau")
    assert float(error) == pytest.approx(float(fit.covariance[place, place].sqrt()))
    assert "<table>" in fit._repr_html_()


def test_a_fit_that_was_read_has_a_likelihood_again(fit, tmp_path):
    fit.save(tmp_path / "levels")
    again = pa.load_levels(tmp_path / "levels", linear)
    assert again.drawn is None
    found = -2 * float(again.likelihood(again.vector).detach())
    assert abs(found - fit.minus2ll) < 4 * 2 * again.likelihood.mc_error + 0.02


def test_what_takes_no_level_says_what_it_takes(fit):
    for function in (diagnose, pa.bootstrap, pa.sample_population):
        with pytest.raises(AmortizedError, match=r"take `fit\.given_effects\(\)`"):
            function(fit)


def test_individuals_are_checked_given_the_effects(fit):
    given = fit.given_effects(num_draws=100)
    assert torch.equal(given.vector, fit.vector)
    assert given.message.startswith("given the effects of 'site'")
    values = torch.stack([fit.cohort["y"].values[i] for i in range(4 * NUM_SITES)])
    u = fit.effects["u"].repeat_interleave(4)
    omega, sigma, mu = (float(fit.estimates[n]) for n in ("omega", "sigma", "mu"))
    covariance = omega**2 + sigma**2 * torch.eye(3).double()
    normal = torch.distributions.MultivariateNormal((mu + u).unsqueeze(1).expand(-1, 3), covariance)
    exact = -2 * float(normal.log_prob(values).sum())
    assert abs(given.minus2ll - exact) < 4 * given.marginal.minus2ll_mc_error + 1e-6
    assert diagnose(given, num_draws=100).status("convergence") == "passed"
    simulated = pa.simulate(
        given, nlme.regimen(1.0), num_individuals=20, covariates={"site": 2}, times=[0.0, 1.0]
    )
    assert len(simulated.bands()) == 2
