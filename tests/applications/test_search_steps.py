"""The steps of a model search: decisions, quadratics, exchanges, removals, errors, structures."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized.applications.model_search.model_searching import make_request
from pyro_amortized.applications.model_search.penalised_start import lasso_path
from pyro_amortized.applications.model_search.search_exchanges import exchange_terms
from pyro_amortized.applications.model_search.search_path import (
    SearchPath,
    decision,
    first_step,
    remove_terms,
)
from pyro_amortized.applications.model_search.search_refits import FittedExtension, Refits
from pyro_amortized.applications.model_search.search_settings import RatioDistribution
from pyro_amortized.applications.model_search.selection_frequencies import (
    Quadratic,
    TermGroup,
    chosen_terms,
    inclusion_frequencies,
)
from pyro_amortized.model.extended_program import (
    CorrelatedBlock,
    CovariateEffect,
    Entry,
    ExtendedProgram,
    Extension,
)
from tests.exact import linear_cohort, linear_program


def test_a_difference_below_its_monte_carlo_error_is_never_accepted():
    assert decision(8.0, 0.1, 6.6) == (True, "added")
    assert decision(8.0, 5.0, 6.6)[0] is False
    assert "within its Monte Carlo error" in decision(8.0, 5.0, 6.6)[1]
    assert decision(6.0, 0.1, 6.6)[0] is False
    assert decision(math.nan, 0.1, 6.6)[0] is False
    accepted, reason = decision(7.0, 0.4, 6.6)
    assert accepted
    assert "margin" in reason


def test_proportional_error_is_found_and_correlated_programs_have_no_correlation_to_add():
    def program(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.tensor([1.0, 0.5]), 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
        factor = pyro.sample("factor", dist.LKJCholesky(2))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            law = dist.MultivariateNormal(mean, scale_tril=omega.unsqueeze(-1) * factor)
            a, b = pyro.sample("phi", law).unbind(-1)
            y = cohort["y"]
            curve = a[..., None] + b[..., None] * y.times
            law = dist.Normal(curve, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", law, obs=y.values)

    times = torch.linspace(0.0, 4.0, 7).double().expand(40, -1).clone()
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    phi = torch.tensor([2.0, 1.5]).double() + 0.5 * normal(40, 2)
    curve = phi[:, :1] + phi[:, 1:] * times
    values = curve + (0.1**2 + (0.15 * curve) ** 2).sqrt() * normal(*curve.shape)
    data = pa.Cohort({"y": pa.Series(times, values)})
    start = pa.fit_population(program, data, seed=1, progress=False)
    found = pa.search(start, residual=True, rule=pa.SearchRule(num_replicates=5))
    assert [t.name for t in found.extension.terms] == ["proportional error of y"]
    assert float(found.best.estimates["proportional_error_of_y"]) == pytest.approx(0.15, abs=0.04)
    # A constant additive part is what the program has already.
    assert "additive error of y" in found.skipped
    assert not any("correlation" in t.term for t in found.tests)


def test_a_quadratic_is_maximised_and_terms_are_chosen_on_it():
    generator = np.random.default_rng(1)
    root = generator.normal(size=(6, 6))
    information = root @ root.T + np.eye(6)
    truth = np.array([0.0, 0.0, 2.0, 0.0, 0.0, 0.0])
    one, two = RatioDistribution(1, 40), RatioDistribution(2, 40)
    groups = [
        TermGroup((2,), (2.0,), one),
        TermGroup((3, 4), (0.0, 0.0), two),
        TermGroup((5,), (0.0,), one),
    ]
    quadratic = Quadratic(np.zeros(6), information, groups)
    own = information[2, 2]
    others = [0, 1]
    left = own - information[2, others] @ np.linalg.solve(
        information[np.ix_(others, others)], information[others, 2]
    )
    rise = quadratic.minus2ll(frozenset()) - quadratic.minus2ll(frozenset({0}))
    assert rise == pytest.approx(truth[2] ** 2 * left)
    rule = pa.SearchRule(criterion="bic", num_replicates=50)
    strong = Quadratic(np.zeros(6), 20 * information, groups)
    assert chosen_terms(strong, rule, frozenset()) == {0}
    scores = generator.normal(size=(40, 6)) @ np.linalg.cholesky(information).T
    scores -= scores.mean(0)
    share = inclusion_frequencies(scores, 40 * information, groups, rule, seed=2)
    assert share[0] == 1.0
    assert (share[1:] < 0.5).all()


def test_p_values_are_those_of_a_regression():
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(30, 4)), generator.normal(size=30)

    def residual(columns):
        coefficients, *_ = np.linalg.lstsq(x[:, :columns], y, rcond=None)
        return float(((y - x[:, :columns] @ coefficients) ** 2).sum())

    smaller, larger = residual(2), residual(4)
    f = (smaller - larger) / 2 / (larger / 26)
    law = RatioDistribution(freedom=2, num_individuals=30, used=2)
    fall = 30 * math.log(smaller / larger)
    assert law.p_value(fall) == pytest.approx(scipy.stats.f.sf(f, 2, 26))
    assert law.p_value(law.quantile(0.01)) == pytest.approx(0.01)
    assert law.quantile(0.01) > scipy.stats.chi2.isf(0.01, 2)
    many = RatioDistribution(2, 1_000_000)
    assert many.quantile(0.01) == pytest.approx(scipy.stats.chi2.isf(0.01, 2), rel=1e-4)
    boundary = RatioDistribution(1, 40, one_sided=True)
    assert boundary.quantile(0.05) == pytest.approx(scipy.stats.chi2.isf(0.1, 1))
    assert math.isnan(law.p_value(math.nan))


def test_two_terms_that_say_the_same_are_one():
    information = np.array([[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    law = RatioDistribution(1, 1000)
    groups = [TermGroup((0,), (0.0,), law), TermGroup((1,), (0.0,), law)]
    quadratic = Quadratic(np.array([8.0, 8.0, 1.0]), information, groups)
    assert quadratic.minus2ll(frozenset({0})) == pytest.approx(-17.0)
    assert quadratic.minus2ll(frozenset({0, 1})) == pytest.approx(-17.0)


def test_a_variance_is_not_negative():
    information = np.eye(2)
    groups = [TermGroup((1,), (0.0,), RatioDistribution(1, 40, one_sided=True))]
    falling = Quadratic(np.array([0.0, -5.0]), information, groups)
    rising = Quadratic(np.array([0.0, 5.0]), information, groups)
    assert falling.minus2ll(frozenset({0})) == falling.minus2ll(frozenset())
    assert rising.minus2ll(frozenset({0})) == pytest.approx(-25.0)


def test_the_lasso_path_begins_with_the_strongest_effect():
    supports = lasso_path(np.eye(3), np.array([1.0, -5.0, 2.0]))
    assert [sorted(s) for s in supports] == [[1], [1, 2], [0, 1, 2]]


def test_structures_are_compared_and_the_search_goes_on_from_the_best():
    cohort = linear_cohort(num=40, missing=0.1, seed=3)

    def constant(data):  # no slope
        mean = pyro.sample("mean", dist.Normal(1.0, 1.0))
        omega, sigma = (pyro.sample(n, dist.HalfNormal(1.0)) for n in ("omega", "sigma"))
        with pyro.plate("individual", len(data)):
            a = pyro.sample("a", dist.Normal(mean, omega))
            y = data["y"]
            law = dist.Normal(a[..., None] + 0 * y.times, sigma[..., None])
            pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)

    def broken(data):
        raise ValueError("no such model")

    first = pa.fit_population(constant, cohort, seed=1, progress=False)
    programs = {"line": linear_program, "broken": broken}
    rule = pa.SearchRule(num_replicates=0, max_terms=1)
    found = pa.search(first, covariates=[], correlations=False, structures=programs, rule=rule)
    assert found.structure == "line"
    assert found.extension.terms == ()
    line, failed = found.path[1:3]
    assert line.accepted
    assert line.freedom == 2
    assert line.difference > 50
    assert "its fit failed" in failed.reason
    assert "line; nothing was added" in str(found)


def test_a_term_is_exchanged_for_one_that_explains_more():
    generator, y = torch.Generator().manual_seed(9), linear_cohort(num=40, seed=3)["y"]
    x, noise = torch.randn(2, 40, generator=generator).double()
    series = pa.Series(y.times, y.values + 0.5 * x.unsqueeze(-1), y.observed)
    covariates = {"weight": 70 * (0.25 * x).exp(), "proxy": 70 * (0.25 * x + 0.15 * noise).exp()}
    data = pa.Cohort({"y": series}, covariates=covariates)
    entry = Entry("phi", 0, "phi[0]")
    middle = float(data.covariates["proxy"].median())
    extension = Extension((CovariateEffect(entry, "proxy", "power", middle),))
    program = ExtendedProgram(linear_program, extension)
    fit = pa.fit_population(program, data, seed=1, num_draws=300, progress=False)
    request, _ = make_request(fit, ["weight", "proxy"], ["phi[0]"], False, False)
    path = SearchPath(FittedExtension(extension, fit), (first_step(fit),))
    after = exchange_terms(path, Refits(linear_program, 0), request)
    step = after.steps[-1]
    assert step.action == "exchange"
    assert step.term == "weight on phi[0] for proxy on phi[0]"
    assert step.accepted
    assert step.difference > 2
    assert [t.name for t in after.current.extension.terms] == ["weight on phi[0]"]
    assert exchange_terms(after, Refits(linear_program, 0), request).current is after.current


def test_a_parameter_leaves_a_block():
    def program(data):
        mean = pyro.sample("mean", dist.Normal(torch.tensor([1.0, 0.5, 0.0]), 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(data)):
            a, b, c = pyro.sample("phi", dist.Normal(mean, omega).to_event(1)).unbind(-1)
            t = data["y"].times
            curve = a[..., None] + b[..., None] * t + c[..., None] * (t - 2) ** 2
            law = dist.Normal(curve, sigma[..., None]).to_event(1)
            pyro.sample("y", law, obs=data["y"].values)

    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    t = torch.linspace(0.0, 4.0, 8).double().expand(40, -1).clone()
    phi = torch.tensor([1.0, 0.5, 0.2]).double() + 0.4 * normal(40, 3)
    y = phi[:, :1] + phi[:, 1:2] * t + phi[:, 2:] * (t - 2) ** 2 + 0.2 * normal(40, 8)
    names = [Entry("phi", j, f"phi[{j}]") for j in range(3)]
    extension = Extension(blocks=(CorrelatedBlock(tuple(names)),))
    data = pa.Cohort({"y": pa.Series(t, y)})
    whole = ExtendedProgram(program, extension)
    fit = pa.fit_population(whole, data, seed=1, num_draws=200, progress=False)
    path = SearchPath(FittedExtension(extension, fit), (first_step(fit),))
    after = remove_terms(path, Refits(program, 0), pa.SearchRule())
    removed = [s for s in after.steps if s.action == "remove"]
    assert removed[0].freedom == 2
    assert removed[0].accepted
    assert removed[0].term.startswith("correlations of phi[")
    # The Wald statistic is near the likelihood ratio where both are small.
    assert removed[0].score == pytest.approx(removed[0].difference, abs=1.0)
    assert after.current.extension == Extension()
