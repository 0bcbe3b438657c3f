"""Random effects: right models pass, and what a model leaves out is found by its name."""

import numpy as np
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import random_effect_tests
from pyro_amortized.diagnostics.effects import random_effect_analysis
from pyro_amortized.diagnostics.effects.effect_dependence import dependence
from pyro_amortized.diagnostics.effects.random_effect_checks import random_effect_checks
from pyro_amortized.diagnostics.effects.random_effects import (
    RandomEffects,
    _normal_scores,
    standardized_effects,
)
from pyro_amortized.diagnostics.variables.compared_variables import (
    Variable,
    variables_of_design,
    variables_of_recording,
)
from tests.exact import exact_posterior, linear_cohort, linear_program


def posteriors(effects, reliability, generator):
    """Exact posteriors of true effects ``(individual, effect)``, in a linear Gaussian model."""
    num, d = effects.shape
    share = reliability * (0.9 + 0.2 * torch.rand(num, 1, generator=generator).double())
    share = share.clamp(max=0.98).expand(num, d)
    noise = torch.randn(num, d, generator=generator).double()
    means = share * effects + (share * (1 - share)).sqrt() * noise
    draws = means + (1 - share).sqrt() * torch.randn(20, num, d, generator=generator).double()
    products = torch.einsum("ni,nj->nij", means, means) + torch.diag_embed(1 - share)
    names = tuple(f"effect {j}" for j in range(d))
    return RandomEffects(names, means, share, torch.ones_like(means), draws, products)


def all_tests(effects, variables):
    tests = []
    ids = tuple(str(i + 1) for i in range(len(effects.means)))
    for j in range(len(effects.names)):
        for variable in variables:
            tests += dependence(effects, j, variable, "variable")
        tests += random_effect_analysis._distribution(effects, j, ids)
        tests += [x for k in range(j) for x in random_effect_analysis._correlation(effects, j, k)]
    return random_effect_analysis.RandomEffectTests(tuple(tests), {})


def some_variables(num, rng):
    return [
        Variable("sex", rng.integers(0, 2, num).astype(float)),
        Variable("weight", rng.lognormal(0, 0.5, num)),
        Variable("study", rng.integers(0, 4, num).astype(float)),
        Variable("order", np.arange(float(num))),
    ]


def test_a_correlation_that_the_data_say_nothing_about_is_not_tested():
    generator = torch.Generator().manual_seed(1)
    effects = torch.randn(9, 2, generator=generator).double()
    poor, known = posteriors(effects, 0.3, generator), posteriors(effects, 0.9, generator)
    assert list(random_effect_analysis._correlation(poor, 1, 0)) == []
    assert len(list(random_effect_analysis._correlation(known, 1, 0))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("num", "reliability"), [(12, 0.8), (40, 0.3)])
def test_p_values_of_a_right_model_are_uniform_or_larger(num, reliability):
    generator, rng = torch.Generator().manual_seed(num), np.random.default_rng(num)
    small = {"variable": [], "correlation": [], "mean": [], "normality": [], "outlier": []}
    failed, repeats = 0, 60
    for _ in range(repeats):
        effects = posteriors(
            torch.randn(num, 3, generator=generator).double(), reliability, generator
        )
        tests = all_tests(effects, some_variables(num, rng))
        failed += sum(c.status == "failed" for c in random_effect_checks(tests))
        for test in tests.tests:
            small[test.kind].append(test.p_value < 0.05)
    for kind, hits in small.items():  # the tests of one cohort depend on each other a little
        most = scipy.stats.binom.ppf(0.9999, len(hits), 0.06) if hits else 0
        assert sum(hits) <= most, kind
    assert sum(small["variable"]) > 0.02 * len(small["variable"])  # and not too large
    assert failed <= 2  # of 180 checks, each with a probability of 0.001


PLANTED = {
    "a covariate": ("random effects and covariates", ["effect 1", "sex"]),
    "a trend": ("random effects and covariates", ["effect 0", "order"]),
    "a correlation": ("correlations of random effects", ["effect 0", "effect 1"]),
    "an outlier": ("distribution of random effects", ["effect 0", "individual 6"]),
    "three outliers": ("distribution of random effects", ["effect 2"]),
    "two groups": ("distribution of random effects", ["effect 1", "normally"]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_left_out_is_found_by_its_name(name):
    num = 48
    generator, rng = torch.Generator().manual_seed(7), np.random.default_rng(7)
    variables = some_variables(num, rng)
    effects = torch.randn(num, 3, generator=generator).double()
    if name == "a covariate":
        effects[:, 1] += 2 * torch.as_tensor(variables[0].values)
    elif name == "a trend":
        effects[:, 0] += torch.linspace(-1.5, 1.5, num)
    elif name == "a correlation":
        effects[:, 1] = 0.9 * effects[:, 0] + 0.19**0.5 * effects[:, 1]
    elif name == "an outlier":
        effects[5, 0] = 8.0
    elif name == "three outliers":
        effects[[2, 11, 30], 2] = torch.tensor([9.0, -9.0, 10.0]).double()
    else:
        effects[:, 1] = 0.2 * effects[:, 1] + torch.where(effects[:, 2] > 0, 1.5, -1.5)
        effects[:, 2] = torch.randn(num, generator=generator).double()
    effects = (effects - effects.mean(0)) / effects.std(0)  # as a fit would estimate them
    checks = random_effect_checks(all_tests(posteriors(effects, 0.95, generator), variables))
    about, words = PLANTED[name]
    assert [c.name for c in checks if c.status != "passed"] == [about]
    found = next(c for c in checks if c.name == about)
    assert all(word in found.words for word in words), found.words


def test_standardised_effects_are_those_of_the_exact_posterior(fit):
    """Means, reliabilities and products of the linear Gaussian model in closed form."""
    effects = standardized_effects(fit.individuals, 3)
    mean, covariance = exact_posterior(fit.cohort, fit.estimates)
    omega = fit.estimates["omega"]
    exact = (mean - fit.estimates["mean"]) / omega
    assert effects.names == tuple(fit.structure.latent_names)
    # 1,000 weighted draws, and 2,000 of the population.
    assert (effects.means - exact).square().mean().sqrt() < 0.07
    share = 1 - covariance.diagonal(dim1=-2, dim2=-1) / omega.square()
    assert (effects.reliability - share).square().mean().sqrt() < 0.05
    both = exact[:, 0] * exact[:, 1] + covariance[:, 0, 1] / omega.prod()
    assert (effects.products[:, 0, 1] - both).square().mean().sqrt() < 0.1


def test_a_covariate_that_the_model_leaves_out_is_named():
    cohort = linear_cohort(num=40, width=8, missing=0.0, seed=3)
    arm = torch.arange(40.0).remainder(2)
    shifted = cohort["y"].values + 2.0 * arm[:, None]
    cohort = pa.Cohort(
        {"y": cohort.with_values({"y": shifted})["y"]},
        covariates={"arm": arm},
        categories={"arm": ("placebo", "verum")},
    )
    fit = pa.fit_population(linear_program, cohort, num_draws=200, seed=1)
    tests = random_effect_tests(fit)
    table = tests.table()
    first = table[table["kind"] != "joint"].iloc[0]
    assert (first["kind"], first["effect"], first["against"]) == ("variable", "phi[0]", "arm")
    assert first["p"] < 1e-5
    assert abs(first["size"] - 2.0) < 0.6
    checks = {c.name: c for c in random_effect_checks(tests)}
    assert checks["random effects and covariates"].status == "failed"
    words = checks["random effects and covariates"].words
    assert "nlme.categorical_effect" in words
    assert "where arm is verum than where it is placebo" in words


def test_few_individuals_and_uninformed_effects_are_not_tested(fit):
    few = random_effect_tests(fit.individuals.take(torch.arange(5)))
    assert few.tests == ()
    assert few.skipped["phi[0]"] == "5 individuals are too few"
    assert random_effect_checks(few) == []


def test_variables_are_read_from_the_cohort():
    times = torch.tensor([[0.0, 1.0, 2.0]]).expand(4, 3)
    series = pa.Series(
        times, torch.ones(4, 3), torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]).bool()
    )
    weight = pa.Series(times, torch.arange(12.0).reshape(4, 3), torch.ones(4, 3).bool())
    doses = pa.Doses(
        times=torch.tensor([[5.0, 0.0]]).expand(4, 2),
        amounts=torch.tensor([[9.0, 1.0], [9.0, 2.0], [9.0, 3.0], [9.0, 4.0]]),
    )
    cohort = pa.Cohort(
        {"y": series},
        doses,
        {"arm": torch.tensor([0.0, 1.0, 0.0, 1.0]), "same": torch.ones(4)},
        time_varying={"weight": weight},
    )
    design = {x.name: x.values.tolist() for x in variables_of_design(cohort)}
    assert design == {
        "arm": [0, 1, 0, 1],
        "weight": [0, 3, 6, 9],
        "the first dose": [1, 2, 3, 4],
        "the order in the file": [0, 1, 2, 3],
    }
    recorded = {x.name: x.values for x in variables_of_recording(cohort, ["y"])}
    assert recorded["the number of values of 'y'"].tolist() == [3, 1, 2, 0]
    assert recorded["the last recorded time of 'y'"][:3].tolist() == [2, 0, 1]
    assert np.isnan(recorded["the last recorded time of 'y'"][3])
    assert Variable("a", np.array([0.0, 0, 1, 1, 2])).levels == [0, 1]  # 2 occurs once
    assert Variable("a", np.array([0.5, 0.5, 1, 1])).levels == []


def test_effects_with_a_beta_distribution_have_normal_scores():
    """Logits of beta variables are skewed; their normal scores are not, also beyond all draws."""
    beta = torch.distributions.Beta(torch.tensor(0.8).double(), torch.tensor(3.0).double())
    torch.manual_seed(1)
    population = beta.sample((200, 50, 1)).logit()
    center, sd = population.mean(), population.std()
    fresh = (beta.sample((20, 300, 1)).logit() - center) / sd
    scores = _normal_scores(fresh, (population - center) / sd)
    assert scipy.stats.shapiro(fresh[0, :, 0]).pvalue < 1e-3
    p_values = [scipy.stats.shapiro(x).pvalue for x in scores[..., 0].numpy()]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    far = _normal_scores(torch.tensor([[[-30.0]], [[30.0]]]).double(), (population - center) / sd)
    assert far[0, 0, 0] < -8
    assert far[1, 0, 0] > 8
    normal = torch.randn(200, 50, 1).double()
    assert torch.equal(_normal_scores(normal[:2], normal), normal[:2])
