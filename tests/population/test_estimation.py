"""Fits of the linear Gaussian model and of its variants, all with one guide."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.numerics.maximization import maximize
from tests.exact import TRUTH, exact_log_marginal, linear_cohort, linear_program
from tests.population.linear_models import observe
from tests.small import NETWORKS

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


@pytest.mark.slow
def test_posterior_mode_adds_the_prior(linear, linear_guide, exact):
    """The prior pulls the mean by the amount that precision weighting says."""
    mode = pa.fit_population(
        linear_program, linear, guide=linear_guide, maximum_a_posteriori=True, num_draws=500, seed=2
    )
    vector, _, covariance = exact
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64)
    precision = torch.linalg.inv(covariance)[:2, :2]
    shift = torch.linalg.solve(precision + torch.eye(2).double(), prior - vector[:2])
    assert torch.allclose(mode.vector[:2] - vector[:2], shift, atol=0.25 * covariance[0, 0] ** 0.5)
    assert mode.criterion == "maximum a posteriori"


@pytest.mark.slow
def test_start_is_used_and_same_seed_same_fit(linear, linear_guide, fit):
    repeated = [
        pa.fit_population(
            linear_program, linear, guide=linear_guide, start=TRUTH, num_draws=300, seed=5
        ).vector
        for _ in range(2)
    ]
    assert torch.equal(*repeated)
    se = fit.covariance.diagonal().sqrt()
    assert ((repeated[0] - fit.vector).abs() < 0.3 * se).all()


@pytest.mark.slow
def test_another_population_model_without_retraining(linear, linear_guide, fit):
    """A common standard deviation for both parameters: fitted by the same guide."""

    def common(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
            intercept, slope = phi.unbind(-1)
            y = cohort["y"]
            prediction = intercept[..., None] + slope[..., None] * y.times
            distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    other = pa.fit_population(common, linear, guide=linear_guide, num_draws=500, seed=2)
    assert other.num_parameters == 4
    assert other.minus2ll > fit.minus2ll - 0.1  # nested in the full model


def test_bad_starts(linear, linear_guide):
    with pytest.raises(FitError, match="num_starts"):
        pa.fit_population(linear_program, linear, guide=linear_guide, num_starts=0)


def test_what_is_fixed_wins_over_the_start(fit, linear, linear_guide):
    restricted = pa.fit_population(
        linear_program,
        linear,
        guide=linear_guide,
        start=fit.estimates,
        fixed={"sigma": torch.tensor(0.5)},
        num_draws=200,
    )
    assert float(restricted.estimates["sigma"]) == pytest.approx(0.5)


@pytest.mark.slow
def test_fixed_parameters(linear, linear_guide):
    sigma = torch.tensor(0.5)
    restricted = pa.fit_population(
        linear_program, linear, guide=linear_guide, fixed={"sigma": sigma}, num_draws=500, seed=1
    )
    assert restricted.converged, restricted.message
    assert float(restricted.estimates["sigma"]) == pytest.approx(0.5)
    assert restricted.num_parameters == 4
    assert restricted.standard_errors["sigma"].isnan()
    assert not restricted.standard_errors["omega"].isnan().any()

    def objective(x):
        return exact_log_marginal(
            linear, {"mean": x[:2], "omega": x[2:].exp(), "sigma": sigma.double()}
        ).sum()

    best = maximize(objective, restricted.vector[:4])
    se = restricted.covariance.diagonal()[:4].sqrt()
    # Rounds end where less than 0.02 + 2 * 5 / 500 = 0.04 is to be gained: sqrt(0.08) = 0.28 se.
    assert ((restricted.vector[:4] - best.vector).abs() < 0.3 * se).all()


@pytest.mark.slow
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
        distribution = dist.MixtureSameFamily(
            dist.Categorical(torch.stack([1 - share, share])),
            dist.Normal(means, omega).to_event(1),
        )
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", distribution)
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
    fit = pa.fit_population(groups, cohort, guide=linear_guide, num_draws=250, seed=1)
    assert fit.converged, fit.message
    for name, value in truth.items():
        apart = (fit.estimates[name] - value) / fit.standard_errors[name]
        assert (apart.abs() < 3.5).all(), name


@pytest.mark.slow
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
        num_simulations=6_000,
        seed=1,
        options=pa.TrainingOptions(max_epochs=4, batch_size=256),
        networks=NETWORKS,
        progress=False,
    )
    fit = pa.fit_population(two, cohort, guide=guide, num_draws=250, seed=1)
    assert fit.converged, fit.message
    for name, value in truth.items():
        apart = (fit.estimates[name] - value) / fit.standard_errors[name]
        assert (apart.abs() < 3.5).all(), name
