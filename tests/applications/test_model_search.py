"""A model search against closed forms: score tests, likelihood ratios, rules of the path."""

import math
from dataclasses import replace

import joblib
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.applications.model_search import search_refits
from pyro_amortized.applications.model_search.model_searching import make_request
from pyro_amortized.applications.model_search.score_expansion import expand
from pyro_amortized.applications.model_search.search_candidates import candidates_for
from pyro_amortized.diagnostics import plots
from pyro_amortized.diagnostics.reports.search_section import search_section
from pyro_amortized.errors import FitError, SettingError
from pyro_amortized.model.extended_program import (
    Extension,
)
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
    # A term whose statistic is near the limit is chosen in a quarter to a half of the cohorts.
    chosen, others = (tests[tests["included"] == x]["frequency"] for x in (True, False))
    assert chosen.max() > 0.6
    assert chosen.min() > max(0.2, others.max())
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


def test_a_covariate_that_says_the_same_takes_no_inclusions_from_that_of_the_model(fit, cohort):
    weight = cohort.covariates["weight"]
    twice = replace(cohort, covariates={"weight": weight, "pounds": 2.2 * weight})
    both = replace(fit, cohort=twice, individuals=replace(fit.individuals, cohort=twice))
    alone = pa.search(fit, covariates=["weight"], correlations=False)
    expected = {t.term: t.frequency for t in alone.tests}["weight on phi[0]"]
    assert expected > 0.5
    for rule in (pa.SearchRule(), pa.SearchRule(criterion="penalised")):
        found = pa.search(both, correlations=False, rule=rule)
        assert [t.name for t in found.extension.terms] == ["weight on phi[0]"]
        share = {t.term: t.frequency for t in found.tests}
        assert share["weight on phi[0]"] >= expected - 0.1
        assert "pounds on phi[0]" in found.skipped


def test_covariates_without_one_known_value_are_named(fit, cohort):
    changing = replace(cohort, time_varying={"crcl": cohort["y"]})
    drawn = replace(fit.individuals, cohort=changing)
    with pytest.raises(SettingError, match="'crcl' varies over time"):
        pa.search(replace(fit, cohort=changing, individuals=drawn), covariates=["crcl"])
    with pytest.raises(SettingError, match="'y' is a series"):
        pa.search(fit, covariates=["y"])
    with pytest.raises(SettingError, match="by name"):
        pa.search(fit, structures=[linear_program])
    with pytest.raises(SettingError, match="not callable"):
        pa.search(fit, structures={"two": 2})


def test_figure_and_report(found, tmp_path):
    plots.searched_path(found).savefig(tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 10_000
    section = search_section(found)
    for text in ("weight_on_phi_0", "frequency", "tests", "LKJCholesky"):
        assert text in section.body


@pytest.mark.slow
def test_a_search_in_processes_has_the_same_result(cohort):
    fit = pa.fit_population(linear_program, cohort, seed=1, num_draws=100, progress=False)
    rule = pa.SearchRule(num_replicates=0, max_terms=1)
    alone = pa.search(fit, covariates=["weight"], rule=rule)
    assert alone.extension.effects
    with joblib.parallel_config(backend="loky", n_jobs=2):
        together = pa.search(fit, covariates=["weight"], rule=rule)
    assert str(together) == str(alone)
