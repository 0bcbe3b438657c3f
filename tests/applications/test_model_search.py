"""A model search against closed forms: score tests, likelihood ratios, rules of the path."""

import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized.applications.model_search import search_refits
from pyro_amortized.applications.model_search.model_searching import make_request
from pyro_amortized.applications.model_search.penalised_start import lasso_path
from pyro_amortized.applications.model_search.score_expansion import expand
from pyro_amortized.applications.model_search.search_candidates import candidates_for
from pyro_amortized.applications.model_search.search_path import decision
from pyro_amortized.applications.model_search.search_settings import RatioDistribution
from pyro_amortized.applications.model_search.selection_frequencies import (
    Quadratic,
    TermGroup,
    chosen_terms,
    inclusion_frequencies,
)
from pyro_amortized.diagnostics import plots
from pyro_amortized.diagnostics.search_section import search_section
from pyro_amortized.errors import FitError, SettingError
from pyro_amortized.model.extended_program import Extension
from pyro_amortized.numerics.maximization import maximize
from tests.exact import TRUTH, linear_cohort, linear_program, padded

NUM = 60


@pytest.fixture(scope="module")
def cohort():
    """The weight changes the intercept; intercept and slope are correlated."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, age = 70 * (0.25 * normal(NUM)).exp(), 40 + 10 * normal(NUM)
    arm = torch.randint(0, 3, (NUM,), generator=generator).double()
    design = linear_cohort(num=NUM, width=8, missing=0.1, seed=3)
    y = design["y"]
    eta = normal(NUM, 2) * TRUTH["omega"]
    eta[:, 1] = 0.35 * eta[:, 0] + 0.7 * eta[:, 1]
    phi = TRUTH["mean"] + eta
    phi[:, 0] += 1.6 * (weight / 70).log()
    values = phi[:, :1] + phi[:, 1:] * y.times + TRUTH["sigma"] * normal(*y.values.shape)
    series = pa.Series(y.times, values, y.observed)
    return pa.Cohort({"y": series}, covariates={"weight": weight, "age": age, "arm": arm})


@pytest.fixture(scope="module")
def fit(cohort):
    return pa.fit_population(linear_program, cohort, seed=1, num_draws=500, progress=False)


@pytest.fixture(scope="module")
def found(fit):
    return pa.search(fit, seed=1)


def marginal_law(cohort, vector, columns=None, correlated=False):
    """Mean and covariance of the values of every individual, with mean, log omega, log sigma, then
    coefficients of the covariates, one per column and parameter, and the correlation (tanh).
    """
    seen, design, _ = padded(cohort)
    mean, omega, sigma = vector[:2], vector[2:4].exp(), vector[4].exp()
    means = mean.expand(len(cohort), 2)
    if columns is not None:
        num = columns.shape[1]
        means = means + columns @ vector[5 : 5 + 2 * num].reshape(num, 2)
    rho = vector[-1].tanh() if correlated else torch.zeros(()).double()
    one = torch.ones(()).double()
    matrix = torch.stack([torch.stack([one, rho]), torch.stack([rho, one])])
    covariance = omega.unsqueeze(-1) * matrix * omega
    marginal = design @ covariance @ design.mT
    marginal = marginal + torch.diag_embed(seen * sigma**2 + (1 - seen))
    return (design @ means.unsqueeze(-1)).squeeze(-1), marginal


def exact_log_likelihood(cohort, vector, columns=None, correlated=False):
    """Of all individuals."""
    seen, _, values = padded(cohort)
    law = torch.distributions.MultivariateNormal(*marginal_law(cohort, vector, columns, correlated))
    return (law.log_prob(values) + 0.5 * math.log(2 * math.pi) * (1 - seen).sum(-1)).sum()


def exact_expected_information(cohort, vector, columns):
    """a' V^-1 a' + tr(V^-1 D V^-1 D') / 2, summed over the individuals."""
    _, covariance = marginal_law(cohort, vector, columns, correlated=True)
    means, matrices = torch.autograd.functional.jacobian(
        lambda v: marginal_law(cohort, v, columns, correlated=True), vector
    )
    inverse = torch.linalg.inv(covariance)
    first = torch.einsum("nip,nij,njq->pq", means, inverse, means)
    turned = torch.einsum("nij,njkp->nikp", inverse, matrices)
    return first + torch.einsum("nijp,njiq->pq", turned, turned) / 2


def columns_of(cohort):
    x = cohort.covariates
    return torch.stack(
        [
            (x["weight"] / x["weight"].median()).log(),
            (x["age"] / x["age"].median()).log(),
        ],
        -1,
    )


def exact_maximum(cohort, columns=None, correlated=False):
    extra = (0 if columns is None else 2 * columns.shape[1]) + int(correlated)
    start = torch.cat([TRUTH["mean"], TRUTH["omega"].log(), TRUTH["sigma"].log()[None]])
    start = torch.cat([start, torch.zeros(extra).double()])
    return maximize(lambda v: exact_log_likelihood(cohort, v, columns, correlated), start)


def exact_score_tests(cohort):
    """Score statistics of (weight, age) x (intercept, slope) and of the correlation, one by one:
    with the expected information of the new parameters, and the observed one with sigma and of the
    model.
    """
    columns, null = columns_of(cohort), exact_maximum(cohort).vector
    center = torch.cat([null, torch.zeros(5).double()])

    def objective(v):
        return exact_log_likelihood(cohort, v, columns, correlated=True)

    score = torch.autograd.functional.jacobian(objective, center)
    observed = -torch.autograd.functional.hessian(objective, center)
    info = exact_expected_information(cohort, center, columns)
    statistics = []
    for j in range(5, 10):
        cross = torch.cat([info[:4, j], observed[4:5, j]])
        answer = torch.linalg.solve(observed[:5, :5], cross)
        variance = info[j, j] - cross @ answer
        statistics.append(float((score[j] - answer @ score[:5]) ** 2 / variance))
    return statistics


def test_score_statistics_are_those_of_the_exact_likelihood(fit, cohort):
    request, skipped = make_request(fit, ["weight", "age"], None, True, False)
    candidates, _ = candidates_for(fit, Extension(), request)
    expansion = expand(fit, candidates)
    names = [c.name for c in candidates]
    assert names == [
        *("weight on phi[0]", "weight on phi[1]", "age on phi[0]", "age on phi[1]"),
        "correlation of phi[0], phi[1]",
    ]
    assert skipped == {}
    for number, exact in enumerate(exact_score_tests(cohort)):
        test = expansion.test(number)
        assert 0 < test.mc_error < 1.0
        assert abs(test.statistic - exact) < 4 * test.mc_error + 0.01, names[number]


def test_the_true_terms_are_found_and_their_likelihood_ratios_are_exact(found, cohort):
    assert [t.name for t in found.extension.terms] == [
        "weight on phi[0]",
        "correlation of phi[0], phi[1]",
    ]
    columns = columns_of(cohort)[:, :1]
    x = torch.cat([columns, torch.zeros_like(columns)], -1)

    def with_weight(vector):  # the coefficient of the slope is zero
        full = torch.cat([vector[:6], torch.zeros(1).double(), vector[6:]])
        return exact_log_likelihood(cohort, full, columns, correlated=True)

    assert x.shape[1] == 2
    start = torch.cat([exact_maximum(cohort).vector, torch.zeros(2).double()])
    best = maximize(with_weight, start)
    exact = 2 * (best.value - exact_maximum(cohort).value)
    total = sum(s.difference for s in found.path if s.action == "add" and s.accepted)
    errors = math.sqrt(sum(s.mc_error**2 for s in found.path[1:] if s.accepted))
    # A fit ends when a round gains less than 0.02 + 0.5 P / K in log likelihood; -2LL is then
    # too large by about twice that.
    assert abs(total - exact) < 4 * errors + 2 * (0.02 + 0.5 * 7 / 500)
    beta = float(found.best.estimates["weight_on_phi_0"])
    rho = float(found.best.estimates["correlation_of_phi_0_phi_1"][1, 0])
    assert beta == pytest.approx(float(best.vector[5]), abs=0.02)
    assert rho == pytest.approx(math.tanh(float(best.vector[6])), abs=0.02)


def test_the_result_says_what_was_done(found):
    text = str(found)
    assert 'weight_on_phi_0 = pyro.sample("weight_on_phi_0"' in text
    assert "LKJCholesky(2)" in text
    table, tests = found.table(), found.test_table()
    assert table["action"].iloc[0] == "start"
    first = table[table["accepted"] & (table["term"] == "weight on phi[0]")].iloc[0]
    unexplained = table["variance of phi[0]"]
    assert first["variance of phi[0]"] < 0.9 * unexplained.iloc[0]
    assert len(tests) == 7  # (weight, age, arm) x 2, one correlation
    assert tests["included"].sum() == 2
    assert set(tests[tests["term"].str.startswith("arm")]["df"]) == {2}
    assert (tests[tests["included"]]["frequency"] > 0.5).all()
    assert (tests[~tests["included"]]["frequency"] < 0.5).all()
    assert found.num_tests >= len(tests)
    assert found.chance == pytest.approx(0.07)


def test_the_chosen_model_is_an_ordinary_model(found, cohort):
    simulated = pa.simulate_population(found.best.structure, cohort, found.best.estimates, 1)
    assert torch.isfinite(simulated["y"].values).all()
    again = pa.search(found.best, covariates=["age"], rule=pa.SearchRule(num_replicates=0))
    assert again.extension == found.extension
    assert set(again.model.extension.terms) == set(found.extension.terms)


def test_other_rules_find_the_same_terms(fit, found):
    names = {t.name for t in found.extension.terms}
    rule = pa.SearchRule(criterion="bic", num_replicates=0)
    by_bic = pa.search(fit, covariates={"weight": "linear", "age": None}, rule=rule)
    assert {t.name for t in by_bic.extension.terms} == names
    assert by_bic.extension.effects[0].form == "linear"
    rule = pa.SearchRule(criterion="penalised", num_replicates=0)
    penalised = pa.search(fit, covariates=["weight", "age"], correlations=False, rule=rule)
    assert [t.name for t in penalised.extension.terms] == ["weight on phi[0]"]
    assert penalised.path[1].reason == "the support of the penalised path"


def test_a_search_goes_on_from_its_folder(fit, tmp_path, monkeypatch):
    rule = pa.SearchRule(num_replicates=0)
    asked = {"covariates": ["weight"], "correlations": False, "rule": rule, "folder": tmp_path}
    first = pa.search(fit, **asked)

    def refuse(*_):
        raise AssertionError("a fit that was kept is made again")

    monkeypatch.setattr(search_refits, "refit", refuse)
    again = pa.search(fit, **asked)
    assert str(again) == str(first)
    with pytest.raises(FitError, match="Another search"):
        pa.search(fit, covariates=["age"], rule=rule, folder=tmp_path)


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


def test_what_cannot_be_searched_is_an_error(fit, cohort):
    with pytest.raises(SettingError, match="height"):
        pa.search(fit, covariates=["height"])
    with pytest.raises(SettingError, match="parameters"):
        pa.search(fit, parameters=["CL"])
    with pytest.raises(SettingError, match="form"):
        pa.search(fit, covariates={"weight": "cubic"})
    with pytest.raises(SettingError, match="criterion"):
        pa.SearchRule(criterion="aic")
    with pytest.raises(SettingError, match="forward"):
        pa.SearchRule(forward=0.0)
    few = replace(fit, cohort=cohort[:5])
    with pytest.raises(FitError, match="5 individuals"):
        pa.search(few)
    mode = replace(fit, criterion="posterior mode")
    with pytest.raises(FitError, match="A search"):
        pa.search(mode)


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


def test_structures_are_compared_and_the_search_goes_on_from_the_best(cohort):
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


def test_figure_and_report(found, tmp_path):
    plots.searched_path(found).savefig(tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 10_000
    section = search_section(found)
    for text in ("weight_on_phi_0", "frequency", "tests", "LKJCholesky"):
        assert text in section.body
