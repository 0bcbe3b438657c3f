"""Uncertainty, comparison and special population models against the exact linear Gaussian model."""

import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student_t

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.population import expanded_likelihood, likelihood_choice, starting_values
from pyro_amortized.population.exact_likelihood import ExactLikelihood
from pyro_amortized.population.expanded_likelihood import ExpandedLikelihood, ExpansionSettings
from pyro_amortized.population.interpolated_likelihood import InterpolatedLikelihood
from pyro_amortized.population.likelihood_choice import ChoiceSettings
from pyro_amortized.population.maximum_search import Search
from pyro_amortized.population.starting_values import StartSettings
from pyro_amortized.sampling.importance_weights import log_mean_difference
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_cohort, linear_program, unpack


def common_program(cohort):
    """One standard deviation for both parameters."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        observe(cohort, phi, sigma)


def observe(cohort, phi, sigma):
    intercept, slope = phi.unbind(-1)
    y = cohort["y"]
    prediction = intercept[..., None] + slope[..., None] * y.times
    law = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
    pyro.sample("y", law, obs=y.values)


# Likelihoods expanded in the shared parameters.


def test_expansion_has_value_slope_and_curvature_of_the_exact_likelihood(fit):
    structure = fit.structure
    exact = ExactLikelihood(fit.individuals)
    expanded = ExpandedLikelihood(fit.individuals, fit.search.scale)

    def results(likelihood):
        def value(z):
            return likelihood(structure.constrain_population(z)).sum()

        hessian = torch.autograd.functional.hessian(value, fit.vector)
        return value(fit.vector), torch.autograd.functional.jacobian(value, fit.vector), hessian

    for mine, theirs in zip(results(expanded), results(exact), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-3)
    moved = fit.vector + 0.05
    near = [x(structure.constrain_population(moved)).sum() for x in (expanded, exact)]
    assert abs(float(near[0] - near[1])) < 0.02


def test_parts_of_the_individuals_make_no_difference(fit):
    whole = ExpandedLikelihood(fit.individuals, fit.search.scale)
    settings = ExpansionSettings(max_rows=7000)
    parts = ExpandedLikelihood(fit.individuals, fit.search.scale, settings=settings)
    assert len(parts.parts) == 6

    def gradient(likelihood):
        z = fit.vector.clone().requires_grad_()
        likelihood(fit.structure.constrain_population(z)).sum().backward()
        return z.grad

    assert torch.allclose(gradient(whole), gradient(parts))
    assert torch.allclose(whole.log_weights(fit.estimates), fit.individuals.log_weights, atol=1e-10)


@pytest.mark.filterwarnings("ignore:The missing values")
def test_many_individuals_find_the_exact_maximum(linear_guide, monkeypatch):
    """With expanded likelihoods, starts on some of the individuals, then more, several parts."""
    monkeypatch.setattr(likelihood_choice, "CHOICE", ChoiceSettings(max_exact=1000))
    monkeypatch.setattr(expanded_likelihood, "EXPANSION", ExpansionSettings(max_rows=50_000))
    start = StartSettings(large_cohort=400, max_individuals_of_large=100)
    monkeypatch.setattr(starting_values, "START", start)
    cohort = linear_cohort(num=400, seed=5)
    vector, value, covariance = exact_fit(cohort)
    se = covariance.diagonal().sqrt()
    found = pa.fit_population(linear_program, linear_guide, cohort, seed=1)
    assert found.converged, found.message
    assert found.marginal.num_draws == 1000
    assert ((found.vector - vector).abs() < 0.15 * se).all()
    assert ((found.covariance.diagonal().sqrt() / se - 1).abs() < 0.05).all()
    assert abs(found.minus2ll + 2 * value) < 4 * found.marginal.minus2ll_mc_error + 0.1


# Uncertainty.


def test_sandwich_against_exact_scores(fit, linear, exact):
    vector, _, covariance = exact
    scores = torch.autograd.functional.jacobian(
        lambda z: exact_log_marginal(linear, unpack(z)), vector
    )
    scores = scores - scores.mean(0)
    expected = (covariance @ scores.T @ scores @ covariance).diagonal().sqrt()
    found = fit.robust_covariance.diagonal().sqrt()
    assert ((found / expected - 1).abs() < 0.1).all()
    assert set(fit.robust_standard_errors) == {"mean", "omega", "sigma"}


@pytest.mark.parametrize(("name", "index"), [("mean[0]", 0), ("omega[1]", 3), ("sigma", 4)])
def test_profiles_against_exact_profiles(fit, linear, exact, name, index):
    vector, value, _ = exact
    profile = pa.profile_likelihood(fit, name)
    free = torch.ones(5, dtype=torch.bool)
    free[index] = False

    def height(bound):
        z = float(bound) if index < 2 else float(torch.tensor(bound).log())

        def objective(x):
            whole = vector.masked_scatter(free, x)
            whole = torch.where(free, whole, torch.tensor(z).double())
            return exact_log_marginal(linear, unpack(whole)).sum()

        return maximize(objective, vector[free]).value

    for bound in (profile.lower, profile.upper):
        assert abs(2 * (value - height(bound)) - 3.84) < 0.4
    assert profile.minus2ll.min() < 1e-6
    assert (profile.values[1:] > profile.values[:-1]).all()


def test_profiles_of_many_draws_are_those_of_the_exact_likelihood(fit, monkeypatch):
    """A residual error is followed by expanding the observations anew on the way."""
    exact = pa.profile_likelihood(fit, "sigma")
    monkeypatch.setattr(likelihood_choice, "CHOICE", ChoiceSettings(max_exact=1))
    expanded = replace(fit)
    assert isinstance(expanded.likelihood, ExpandedLikelihood)
    found = pa.profile_likelihood(expanded, "sigma")
    width = exact.upper - exact.lower
    assert abs(found.lower - exact.lower) < 0.02 * width
    assert abs(found.upper - exact.upper) < 0.02 * width


def test_draws_without_a_gradient_do_not_end_a_fit():
    """Half of the draws of some individuals lie where the program takes the root of something
    negative: density NaN, gradient NaN.
    """
    generator = torch.Generator().manual_seed(1)
    times = torch.linspace(0.5, 4, 6).double().expand(30, -1).clone()
    phi = 0.4 * torch.randn(30, 1, generator=generator).double()
    noise = 0.2 * torch.randn(30, 6, generator=generator).double()
    cohort = pa.Cohort({"y": pa.Series(times, phi.exp() * times.sqrt() + noise)})

    def rooted(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega))
            y = cohort["y"]
            predicted = ((phi[..., None] + 0.9) * y.times / 0.9).sqrt()
            law = dist.Normal(predicted, sigma[..., None] * (predicted + 0.1))
            pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)

    with warnings.catch_warnings():  # of simulations that failed
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        options = pa.TrainingOptions(max_epochs=8, batch_size=256)
        guide = pa.train(
            rooted, cohort, num_simulations=10_000, seed=1, options=options, progress=False
        )
        found = pa.fit_population(rooted, guide, cohort, num_draws=400, seed=1)
    assert found.converged, found.message
    assert (found.individuals.log_weights == -torch.inf).any()
    collapsed = pa.marginalize(rooted, guide, population=found.estimates)
    values = {name: x.clone().requires_grad_() for name, x in found.estimates.items()}
    trace = pyro.poutine.trace(pyro.condition(collapsed, values)).get_trace(cohort)
    slopes = torch.autograd.grad(trace.log_prob_sum(), list(values.values()))
    assert torch.stack(slopes).isfinite().all()


def test_bootstraps_agree_with_standard_errors(fit):
    found = pa.bootstrap(fit, num_replicates=100, seed=1)
    for name, error in fit.robust_standard_errors.items():
        low, high = found.estimates[name].quantile(torch.tensor([0.16, 0.84]).double(), 0)
        ratio = (high - low) / 2 / error  # of omega[1] the standard deviation is skewed
        assert ((ratio - 1).abs() < 0.4).all(), name
        assert (found.standard_errors[name] > 0.6 * error).all(), name
    low, high = found.interval()["omega"]
    assert ((low < fit.estimates["omega"]) & (fit.estimates["omega"] < high)).all()
    plain = found.interval(method="percentile")["sigma"]
    logs = found.estimates["sigma"].log()
    wide = float(student_t.ppf(0.025, 39)) * (40 / 39) ** 0.5
    tail = float(norm.cdf(wide))
    assert torch.allclose(plain[0].log(), logs.quantile(tail), atol=0.02)
    basic = found.interval()["sigma"]  # mirrored about the estimate, in logarithms
    center = fit.estimates["sigma"].log()
    assert torch.allclose(basic[0].log() + plain[1].log(), 2 * center, atol=0.02)
    with pytest.raises(FitError, match="percentile"):
        found.interval(method="studentized")


def test_parametric_bootstrap(fit):
    found = pa.bootstrap(fit, num_replicates=6, parametric=True, num_draws=200, seed=1)
    assert found.kind == "parametric"
    apart = (found.vectors - fit.vector) / fit.covariance.diagonal().sqrt()
    assert apart.abs().max() < 5
    assert apart.std() > 0.4


def test_population_draws_against_the_exact_posterior(fit, linear):
    found = pa.sample_population(fit, num_draws=1000, num_proposals=1500, seed=1)
    assert found.pareto_k < 0.7
    # The same weights from the closed form.
    structure = fit.structure
    kept = found.vectors[::10]
    mine = found.fit.log_likelihoods
    for vector in kept[:5]:
        exact = exact_log_marginal(linear, unpack(vector)).sum()
        assert abs(float(mine(vector).sum() - exact)) < 0.5
    assert found.draws["omega"].shape == (1000, 2)
    draws = found.individuals()
    given = fit.individuals.moments()[1]
    assert draws.shape == (1000, 40, 2)
    assert (draws.std(0) > 0.85 * given).all()
    assert draws.std(0).mean() > given.mean()  # wider than with the population held
    assert structure.latent_names == ["phi[0]", "phi[1]"]


def test_an_interpolated_likelihood_is_the_exact_one(fit):
    """Inside the box to many digits, outside by the program itself."""
    structure = fit.structure
    shared = structure.coordinates(structure.shared)
    radius = 5 * fit.covariance.diagonal()[shared].sqrt()
    quick = InterpolatedLikelihood(ExactLikelihood(fit.individuals), fit.vector[shared], radius)
    scale = torch.linalg.cholesky(fit.covariance)
    generator = torch.Generator().manual_seed(0)
    for size in (0.0, 1.0, 2.0, 12.0):
        noise = torch.randn(len(fit.vector), generator=generator).double()
        population = structure.constrain_population(fit.vector + size * scale @ noise)
        exact = ExactLikelihood(fit.individuals)(population)
        assert torch.allclose(quick(population), exact, atol=1e-4)
    draws = pa.sample_population(fit, num_draws=50, num_proposals=400, seed=1)
    assert isinstance(draws.likelihood, InterpolatedLikelihood)


def test_what_has_no_standard_error_is_refused(fit):
    with pytest.raises(FitError, match="no parameter 'nu'"):
        pa.profile_likelihood(fit, "nu")
    with pytest.raises(FitError, match="`num_replicates` is 1"):
        pa.bootstrap(fit, num_replicates=1)


def test_posterior_modes_are_refused(fit):
    mode = replace(fit, criterion="maximum a posteriori")
    with pytest.raises(FitError, match="A bootstrap of a fit by maximum a posteriori"):
        pa.bootstrap(mode)
    with pytest.raises(FitError, match="A profile likelihood of a fit"):
        pa.profile_likelihood(mode, "sigma")


def test_what_is_fixed_wins_over_the_start(fit, linear, linear_guide):
    found = pa.fit_population(
        linear_program,
        linear_guide,
        linear,
        start=fit.estimates,
        fixed={"sigma": torch.tensor(0.5)},
        num_draws=200,
    )
    assert float(found.estimates["sigma"]) == pytest.approx(0.5)


# Comparison.


def test_differences_on_common_draws(fit, linear, linear_guide):
    smaller = pa.fit_population(common_program, linear_guide, linear, num_draws=1000, seed=3)
    found = pa.difference(smaller, fit)
    exact = [
        exact_log_marginal(linear, dict(f.estimates) | {"omega": f.estimates["omega"].expand(2)})
        for f in (smaller, fit)
    ]
    expected = exact[0] - exact[1]
    z = (found.log_likelihood - expected) / found.mc_error
    assert z.abs().max() < 4.5
    assert abs(found.minus2ll + 2 * float(expected.sum())) < 3 * found.minus2ll_mc_error + 0.01
    assert found.minus2ll_mc_error < fit.marginal.minus2ll_mc_error
    test = pa.likelihood_ratio_test(smaller, fit)
    assert test.degrees_of_freedom == 1
    assert test.statistic == pytest.approx(found.minus2ll)
    assert 0 <= test.p_value <= 1
    table = pa.compare({"one": smaller, "two": fit})
    assert table.rows[0].aic == 0
    assert "difference" in str(table)
    with pytest.raises(FitError, match="1 fits"):
        pa.compare({"one": fit})
    with pytest.raises(FitError, match="larger model"):
        pa.likelihood_ratio_test(fit, smaller)


@pytest.mark.filterwarnings("ignore:The missing values")
def test_fits_of_different_data_are_refused(fit, linear_guide):
    other = pa.fit_population(
        linear_program, linear_guide, linear_cohort(seed=3), start=fit.estimates, num_draws=200
    )
    with pytest.raises(FitError, match="different data"):
        pa.difference(fit, other)


def test_error_of_a_difference_is_honest():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2000, generator=generator, dtype=torch.float64)
    one, two = 0.3 * x, 0.4 * x + 0.05 * x**2
    found, error = log_mean_difference(one, two)
    exact = 0.3**2 / 2 - (0.4**2 / (2 * 0.9) - 0.5 * torch.tensor(0.9).log())
    z = (found - exact) / error
    assert abs(float(z.std()) - 1) < 0.1
    assert abs(float(z.mean())) < 0.2


# Special population models, without retraining.


def test_fixed_parameters(linear, linear_guide):
    sigma = torch.tensor(0.5)
    found = pa.fit_population(
        linear_program, linear_guide, linear, fixed={"sigma": sigma}, num_draws=500, seed=1
    )
    assert found.converged, found.message
    assert float(found.estimates["sigma"]) == pytest.approx(0.5)
    assert found.num_parameters == 4
    assert found.standard_errors["sigma"].isnan()
    assert not found.standard_errors["omega"].isnan().any()

    def objective(x):
        return exact_log_marginal(
            linear, {"mean": x[:2], "omega": x[2:].exp(), "sigma": sigma.double()}
        ).sum()

    best = maximize(objective, found.vector[:4])
    se = found.covariance.diagonal()[:4].sqrt()
    # Rounds end where less than 0.02 + 2 * 5 / 500 = 0.04 is to be gained: sqrt(0.08) = 0.28 se.
    assert ((found.vector[:4] - best.vector).abs() < 0.3 * se).all()


@pytest.mark.filterwarnings("ignore:The missing values")
def test_a_variance_of_zero_is_held_and_named(linear_guide):
    truth = TRUTH | {"omega": torch.tensor([0.6, 0.0]).double()}
    cohort = linear_cohort(num=60, seed=8, truth=truth)
    found = pa.fit_population(linear_program, linear_guide, cohort, num_draws=800, seed=1)
    assert found.converged, found.message
    assert "omega[1] cannot be told from zero" in found.message

    assert found.standard_errors["omega"].isnan().tolist() == [False, True]
    free, narrow = [0, 1, 2, 4], found.estimates["omega"][1].double()

    def exact(x, narrow=narrow):
        omega = torch.stack([x[2].exp(), narrow])
        return exact_log_marginal(
            cohort, {"mean": x[:2], "omega": omega, "sigma": x[3].exp()}
        ).sum()

    best = maximize(exact, found.vector[free])  # with what is held where it is held
    assert abs(found.minus2ll + 2 * best.value) < 4 * found.marginal.minus2ll_mc_error + 0.2
    none = maximize(lambda x: exact(x, torch.zeros(()).double()), found.vector[free])
    assert best.value - none.value < 1.92  # what it says is so: zero is within the data's reach
    apart = found.vector[free] - best.vector
    assert (apart.abs() < 0.5 * found.covariance.diagonal()[free].sqrt()).all()


def test_a_variance_of_zero_is_found_in_any_part_of_a_sorted_cohort(linear_guide):
    """The second arm begins after 120 individuals; only there the slopes' variance is unknown."""

    def arms(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        slopes = torch.where(cohort.covariates["arm"] > 0, omega[1], 0.001)
        with pyro.plate("individual", len(cohort)):
            scale = torch.stack([omega[0].expand(len(cohort)), slopes], -1)
            phi = pyro.sample("phi", dist.Normal(mean, scale).to_event(1))
            observe(cohort, phi, sigma)

    arm = torch.arange(200).ge(120).double()
    cohort = pa.Cohort(linear_cohort(num=200).series, covariates={"arm": arm})
    structure = pa.read_structure(arms, cohort)
    truth = TRUTH | {"omega": torch.tensor([0.6, 0.01]).double()}
    cohort = pa.simulate_population(structure, cohort, truth, 1)
    generator = torch.Generator().manual_seed(1)
    search = Search.begin(structure, linear_guide, cohort, "maximum likelihood", generator)
    vector = structure.unconstrain_population(truth)
    individuals = search.draw(vector, 200, generator)
    held, _ = search.vanishing(ExactLikelihood(individuals), vector)
    named = [n for n, x in zip(structure.population_names, held.tolist(), strict=True) if x]
    assert named == ["omega[1]"]


@pytest.mark.filterwarnings("ignore:The missing values")
def test_subpopulations(linear_guide):
    """A mixture of two groups with intercepts apart; no retraining."""

    def groups(cohort):
        low = pyro.sample("low", dist.Normal(0.0, 0.5))
        gap = pyro.sample("gap", dist.LogNormal(0.5, 0.3))
        slope = pyro.sample("slope", dist.Normal(0.5, 0.5))
        share = pyro.sample("share", dist.Beta(3.0, 3.0))
        omega = pyro.sample("omega", dist.LogNormal(torch.tensor([-1.0, -1.0]), 0.5).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        means = torch.stack([torch.stack([low, slope]), torch.stack([low + gap, slope])])
        law = dist.MixtureSameFamily(
            dist.Categorical(torch.stack([1 - share, share])),
            dist.Normal(means, omega).to_event(1),
        )
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", law)
            observe(cohort, phi, sigma)

    truth = {
        "low": torch.tensor(-0.5),
        "gap": torch.tensor(2.5),
        "slope": torch.tensor(0.5),
        "share": torch.tensor(0.4),
        "omega": torch.tensor([0.3, 0.3]),
        "sigma": torch.tensor(0.4),
    }
    design = linear_cohort(num=150, missing=0.0, seed=4)
    structure = pa.read_structure(groups, design)
    cohort = pa.simulate_population(structure, design, structure.check_population(truth), 1)
    found = pa.fit_population(groups, linear_guide, cohort, num_draws=500, seed=1)
    assert found.converged, found.message
    for name, value in truth.items():
        apart = (found.estimates[name] - value) / found.standard_errors[name]
        assert (apart.abs() < 3.5).all(), name


@pytest.mark.filterwarnings("ignore:The missing values")
def test_two_experiments_in_one_fit(linear_guide):
    """Different times, one parameter specific to the experiment."""

    def two(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        second = cohort.covariates["second"]
        center = torch.stack([mean[0] + shift * second, mean[1].expand(len(second))], -1)
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(center, omega).to_event(1))
            observe(cohort, phi, sigma)

    def experiment(num, width, second, seed):
        part = linear_cohort(num=num, width=width, seed=seed)
        return pa.Cohort(part.series, covariates={"second": torch.full((num,), second)})

    design = pa.concatenate([experiment(60, 8, 0.0, 1), experiment(40, 5, 1.0, 2)])
    structure = pa.read_structure(two, design)
    truth = structure.check_population(TRUTH | {"shift": torch.tensor(0.7)})
    cohort = pa.simulate_population(structure, design, truth, 3)
    guide = pa.train(
        two,
        design,
        num_simulations=12_000,
        seed=1,
        options=pa.TrainingOptions(max_epochs=6, batch_size=256),
        progress=False,
    )
    found = pa.fit_population(two, guide, cohort, num_draws=500, seed=1)
    assert found.converged, found.message
    for name, value in truth.items():
        apart = (found.estimates[name] - value) / found.standard_errors[name]
        assert (apart.abs() < 3.5).all(), name
