"""Standard deviations that cannot be distinguished from zero."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.vanishing_deviations import vanishing_coordinates
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_cohort, linear_program
from tests.population.linear_models import observe

NO_SLOPES = TRUTH | {"omega": torch.tensor([0.6, 0.0], dtype=torch.float64)}


@pytest.mark.slow
def test_a_small_variance_is_estimated_at_its_exact_maximum():
    """Slopes that do not vary; the maximum is at omega[1] = 0.12, 0.8 above that at zero."""
    cohort = linear_cohort(num=60, seed=8, truth=NO_SLOPES)
    vector, value, covariance = exact_fit(cohort)
    fit = pa.fit_population(linear_program, cohort, seed=1)
    assert fit.converged, fit.message
    assert ((fit.vector - vector).abs() < 0.05 * covariance.diagonal().sqrt()).all()
    assert fit.minus2ll == pytest.approx(-2 * value, abs=0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The missing values")
def test_a_variance_of_zero_is_held_and_named(linear_guide):
    cohort = linear_cohort(num=60, seed=10, truth=NO_SLOPES)  # the maximum is at zero
    fit = pa.fit_population(linear_program, cohort, guide=linear_guide, num_draws=800, seed=1)
    assert fit.converged, fit.message
    assert "the standard deviation of phi[1] cannot be distinguished from zero" in fit.message

    assert fit.standard_errors["omega"].isnan().tolist() == [False, True]
    free, narrow = [0, 1, 2, 4], fit.estimates["omega"][1].double()

    def exact(x, narrow=narrow):
        omega = torch.stack([x[2].exp(), narrow])
        return exact_log_marginal(
            cohort, {"mean": x[:2], "omega": omega, "sigma": x[3].exp()}
        ).sum()

    best = maximize(exact, fit.vector[free])  # with what is held where it is held
    assert abs(fit.minus2ll + 2 * best.value) < 4 * fit.marginal.minus2ll_mc_error + 0.2
    none = maximize(lambda x: exact(x, torch.zeros(()).double()), fit.vector[free])
    assert best.value - none.value < 1.92  # what it says is so: zero is within the data's reach
    apart = fit.vector[free] - best.vector
    assert (apart.abs() < 0.1 * fit.covariance.diagonal()[free].sqrt()).all()


@pytest.mark.slow
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
    # With 200 draws the Monte Carlo error of a change is half of what counts as none.
    individuals = search.draw(vector, 1000, generator)
    likelihood = ExactLikelihood(individuals, follow(individuals, search.scale))
    held = vanishing_coordinates(structure, cohort, likelihood, vector, search.seed)
    named = [n for n, x in zip(structure.population_names, held.tolist(), strict=True) if x]
    assert named == ["omega[1]"]
