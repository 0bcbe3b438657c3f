"""A search over sites that a fit holds, against the closed likelihood of a linear model."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.applications.model_search import search_refits
from pyro_amortized.applications.model_search.held_sites import acts_already, sites_of
from pyro_amortized.applications.model_search.model_searching import make_request
from pyro_amortized.applications.model_search.score_expansion import expand
from pyro_amortized.applications.model_search.search_candidates import candidates_for
from pyro_amortized.errors import FitError, SettingError
from pyro_amortized.model.extended_program import Extension
from pyro_amortized.numerics.maximization import maximize, observed_information, value_and_gradient

NUM, TIMES = 60, 5
HELD = {"beta": torch.tensor(0.0), "gamma": torch.zeros(2), "power": torch.tensor(1.0)}
RULE = pa.SearchRule(num_replicates=0)


def model(cohort, slope=False):
    """Two covariates that vary over time act on the observations by beta and gamma."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
    gamma = pyro.sample("gamma", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    power = pyro.sample("power", dist.LogNormal(0.0, 0.3))
    drift = pyro.sample("drift", dist.Normal(0.0, 1.0)) if slope else torch.zeros(())
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu, omega))
        y = cohort["y"]
        x, z = (cohort.time_varying[n].at(y.times) for n in ("x", "z"))
        f = b[..., None] + beta[..., None] * x + drift[..., None] * y.times
        f = f + gamma[..., 0, None] * z + gamma[..., 1, None] * z**2
        f = f + 0.2 * y.times.clamp(min=1e-9) ** power[..., None]
        error = dist.Normal(f, sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def cohort():
    """x acts by 0.15, z does not act; the weight acts on the mean of b."""
    generator = torch.Generator().manual_seed(2)
    times = torch.arange(float(TIMES)).double().expand(NUM, -1).clone()

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, z = (normal(NUM, TIMES) + normal(NUM, 1) for _ in range(2))
    weight = 70 * (0.25 * normal(NUM)).exp()
    b = 1 + 0.5 * normal(NUM, 1) + 2 * (weight / 70).log()[:, None]
    y = b + 0.15 * x + 0.2 * times + 0.3 * normal(NUM, TIMES)
    varying = {"x": pa.Series(times, x), "z": pa.Series(times, z)}
    covariates = {"weight": weight}
    return pa.Cohort({"y": pa.Series(times, y)}, covariates=covariates, time_varying=varying)


@pytest.fixture(scope="module")
def fit(cohort):
    return pa.fit_population(model, cohort, fixed=HELD, seed=1, num_draws=500)


@pytest.fixture(scope="module")
def larger(cohort):
    """Both covariates act already."""
    return pa.fit_population(model, cohort, fixed={"power": HELD["power"]}, seed=1, num_draws=100)


@pytest.fixture(scope="module")
def found(fit):
    return pa.search(fit, covariates=["x", "z", "weight"], seed=1)


def closed(cohort, v):
    """Log likelihood with mu, log omega, log sigma, beta, gamma, log power, weight on b."""
    y, w = cohort["y"], cohort.covariates["weight"]
    x, z = (cohort.time_varying[n].at(y.times) for n in ("x", "z"))
    omega, sigma = v[1].exp(), v[2].exp()
    covariance = omega**2 + sigma**2 * torch.eye(TIMES).double()
    mean = v[0] + v[7] * (w / w.median()).log()[:, None] + v[3] * x + v[4] * z + v[5] * z**2
    mean = mean + 0.2 * y.times.clamp(min=1e-9) ** v[6].exp()
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(y.values).sum()


def exact(cohort, free):
    """The maximum over mu, omega, sigma and some other places, and the vector."""
    places = torch.tensor([0, 1, 2, *free])
    base = torch.zeros(8).double()

    def function(v):
        return closed(cohort, base.index_put((places,), v))

    start = torch.tensor([1.0, -0.7, -1.2] + [0.0] * len(free)).double()
    best = maximize(function, start)
    return best.value, base.index_put((places,), best.vector)


def exact_statistic(cohort, own, at, rest):
    """Score statistic with the observed information of the closed likelihood."""
    places = torch.tensor([*rest, *own])

    def function(v):
        return closed(cohort, at.index_put((places,), v))

    score = value_and_gradient(function, at[places])[1]
    info = observed_information(function, at[places])
    r = len(rest)
    answer = torch.linalg.solve(info[:r, :r], info[:r, r:])
    remaining = info[r:, r:] - info[r:, :r] @ answer
    slope = score[r:] - answer.T @ score[:r]
    return float(slope @ torch.linalg.solve(remaining, slope))


def test_the_sites_of_a_covariate_are_found_from_the_density(fit, larger):
    assert sites_of(fit, "x") == ["beta"]
    assert sites_of(fit, "z") == ["gamma"]
    assert acts_already(larger, "x")
    assert sites_of(larger, "x") == []


def test_score_statistics_are_those_of_the_closed_form(fit, cohort):
    request, _ = make_request(fit, ["x", "z", "weight"], None, False, False, ["power"])
    candidates, _ = candidates_for(fit, Extension(), request)
    names = [c.name for c in candidates]
    assert names == ["weight on b", "power", "beta (x)", "gamma (z)"]
    expansion, at = expand(fit, candidates), exact(cohort, [])[1]
    for own, name in (([6], "power"), ([3], "beta (x)"), ([4, 5], "gamma (z)")):
        test = expansion.test(names.index(name))
        statistic = exact_statistic(cohort, own, at, [0, 1, 2])
        assert abs(test.statistic - statistic) < 4 * test.mc_error + 0.01 * statistic, name


def test_a_covariate_that_varies_over_time_is_found_and_refitted(fit, found, cohort):
    assert {t.name for t in found.extension.terms} == {"beta (x)", "weight on b"}
    assert found.best.fixed == ("gamma", "power")
    assert set(found.held) == {"gamma", "power"}
    value, vector = exact(cohort, [3, 7])
    total = sum(s.difference for s in found.path if s.action == "add" and s.accepted)
    errors = math.sqrt(sum(s.mc_error**2 for s in found.path[1:] if s.accepted))
    assert abs(total - 2 * (value - exact(cohort, [])[0])) < 4 * errors + 0.05
    for name, place in (("beta", 3), ("weight_on_b", 7)):
        se = float(found.best.standard_errors[name])
        assert abs(float(found.best.estimates[name] - vector[place])) < 0.05 * se
    row = next(s for s in found.path if s.term == "beta (x)" and s.action == "add")
    assert row.freedom == 1
    assert 0 <= row.p_value < 0.01
    frequencies = found.test_table().set_index("term")["frequency"]
    assert frequencies["beta (x)"] > 0.8
    assert frequencies["gamma (z)"] < 0.3
    assert "beta is estimated: leave it out of `fixed=`" in found.lines
    assert found.best.num_parameters == fit.num_parameters + 2


def test_freed_sites_are_held_again_where_they_are_not_needed(fit, found):
    """A rule that no term meets leads back to the first model, with the values that it held."""
    nothing = pa.SearchRule(forward=1e-30, num_replicates=0)
    back = pa.search(found.best, covariates=[], correlations=False, rule=nothing)
    assert back.extension.terms == ()
    assert set(back.best.fixed) == set(HELD)
    assert torch.equal(back.best.estimates["beta"], torch.zeros(()).double())
    assert abs(back.best.minus2ll - fit.minus2ll) < 0.1


def test_by_default_what_acts_through_a_held_site_is_searched(fit):
    request, _ = make_request(fit, None, None, True, False)
    assert [(t.site, t.covariates) for t in request.freed] == [("beta", ("x",)), ("gamma", ("z",))]


def test_a_site_without_a_covariate_is_named(fit):
    found = pa.search(fit, covariates=[], correlations=False, freed=["power"], rule=RULE)
    assert [t.term for t in found.tests] == ["power"]
    with pytest.raises(FitError, match="'mu' was not fixed"):
        pa.search(fit, freed=["mu"])


def test_the_folder_of_a_search_keeps_freed_sites(fit, tmp_path, monkeypatch):
    asked = {"covariates": ["x"], "correlations": False, "rule": RULE, "folder": tmp_path}
    first = pa.search(fit, **asked)

    def refuse(*_):
        raise AssertionError("a fit that was kept is made again")

    monkeypatch.setattr(search_refits, "refit", refuse)
    assert str(pa.search(fit, **asked)) == str(first)
    assert first.best.fixed == ("gamma", "power")


def test_structures_hold_what_the_fit_holds(fit):
    def drifting(cohort):
        model(cohort, slope=True)

    asked = {"covariates": [], "correlations": False, "rule": RULE}
    found = pa.search(fit, structures={"drift": drifting}, **asked)
    assert found.path[1].freedom == 1


def test_what_cannot_be_tested_is_an_error(fit, larger):
    match = r"'x' varies over time, and acts through parameters(.|\n)*freed="
    with pytest.raises(SettingError, match=match):
        pa.search(larger, covariates=["x"])
    with pytest.raises(SettingError, match="The form of the covariate 'x'"):
        pa.search(fit, covariates={"x": "power"})


def test_a_covariate_that_the_program_does_not_read_is_an_error(cohort):
    def without(data):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(data)):
            b = pyro.sample("b", dist.Normal(mu, omega))
            y = data["y"]
            error = dist.Normal(b[..., None].expand(y.values.shape), 0.5)
            pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)

    fit = pa.fit_population(without, cohort, seed=1, num_draws=100)
    with pytest.raises(SettingError, match=r"'x' varies over time(.|\n)*write its effect"):
        pa.search(fit, covariates=["x"])
