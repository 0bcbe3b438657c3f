"""Counts, categories and events: likelihood and fits against quadrature, where the method of
Laplace is biased.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import ModelError
from pyro_amortized.numerics.maximization import maximize, observed_information
from tests import outcome_models as om

RARE = {n: torch.tensor(x).double() for n, x in (("typical", -3.0), ("slope", 0.2), ("omega", 1.5))}


@pytest.mark.parametrize("name", om.MODELS)
def test_the_likelihood_is_that_of_quadrature(name):
    model, truth = om.MODELS[name], om.truth_of(name)
    cohort = om.simulated(model, om.trend_design(), truth, seed=1)
    marginal = pa.marginal_likelihood(model, cohort, truth, seed=1)
    exact = float(om.exact_minus2ll(model, cohort, truth).sum())
    assert abs(marginal.minus2ll - exact) < 4 * marginal.minus2ll_mc_error + 1e-6
    assert marginal.minus2ll_mc_error < 0.05


@pytest.mark.parametrize(("end", "fewest", "most"), [(10.0, 0.6, 0.95), (2.5, 0.1, 0.4)])
def test_the_likelihood_of_events_is_that_of_quadrature(end, fewest, most):
    truth = {
        n: torch.tensor(x).double()
        for n, x in (("scale", 2.0), ("shape", 1.5), ("effect", 0.5), ("omega", 0.5))
    }
    cohort = om.simulated(om.weibull_death, om.event_design(end=end), truth, seed=1)
    assert fewest < float(cohort["death"].values[..., 1].mean()) < most
    marginal = pa.marginal_likelihood(om.weibull_death, cohort, truth, seed=1)
    exact = float(om.exact_minus2ll(om.weibull_death, cohort, truth, "scale").sum())
    assert abs(marginal.minus2ll - exact) < 4 * marginal.minus2ll_mc_error + 1e-6


def laplace_minus2ll(model, cohort, population):
    """-2LL by Laplace's method, per individual: mode and curvature by a fine grid."""
    structure = pa.read_structure(model, cohort)
    mean, sd = float(population["typical"]), float(population["omega"])
    grid = mean + sd * torch.linspace(-6, 6, 4801, dtype=torch.float64)
    draws = grid[:, None, None].expand(-1, len(cohort), 1)
    with torch.no_grad():
        density = sum(structure.log_density(cohort, draws, population))
    top = density[1:-1].argmax(0) + 1
    step = float(grid[1] - grid[0])
    rows = torch.arange(len(cohort))
    curvature = density[top + 1, rows] + density[top - 1, rows] - 2 * density[top, rows]
    return -2 * density[top, rows] - torch.log(2 * torch.pi / (-curvature / step**2))


def test_rare_binary_values_where_laplace_is_biased():
    cohort = om.simulated(om.binary, om.trend_design(200), RARE, seed=2)
    marginal = pa.marginal_likelihood(om.binary, cohort, RARE, seed=1)
    exact = float(om.exact_minus2ll(om.binary, cohort, RARE).sum())
    assert abs(marginal.minus2ll - exact) < 4 * marginal.minus2ll_mc_error + 1e-6
    assert abs(float(laplace_minus2ll(om.binary, cohort, RARE).sum()) - exact) > 1.0


def test_the_fit_of_rare_binary_values_is_the_exact_maximum():
    cohort = om.simulated(om.binary, om.trend_design(200), RARE, seed=2)
    fit = pa.fit_population(om.binary, cohort, seed=1)
    structure = fit.structure

    def exact(vector):
        return float(
            om.exact_minus2ll(om.binary, cohort, structure.constrain_population(vector)).sum()
        )

    at_estimate = exact(fit.vector)
    for j in range(len(fit.vector)):  # no step of a tenth of a standard error is better
        step = torch.zeros_like(fit.vector)
        step[j] = 0.1 * fit.covariance.diagonal()[j].sqrt()
        assert exact(fit.vector + step) > at_estimate - 0.01
        assert exact(fit.vector - step) > at_estimate - 0.01
    assert abs(fit.minus2ll - at_estimate) < 4 * fit.marginal.minus2ll_mc_error + 1e-6


def test_a_guide_is_trained_on_events_and_categories():
    design = om.event_design(60)
    truth = {
        n: torch.tensor(x).double()
        for n, x in (("scale", 2.0), ("shape", 1.5), ("effect", 0.5), ("omega", 0.5))
    }
    cohort = om.simulated(om.weibull_death, design, truth, seed=1)
    guide = pa.train(
        om.weibull_death,
        cohort,
        num_simulations=4000,
        options=pa.TrainingOptions(max_epochs=8),
        seed=1,
        progress=False,
    )
    plain = pa.sample_individuals(
        om.weibull_death, cohort, truth, guide=guide, num_draws=400, seed=1, refine=False
    )
    # The draws of the guide itself, not refined: most of them are effective.
    assert float(plain.estimate.ess.median()) > 200
    marginal = pa.marginal_likelihood(om.weibull_death, cohort, truth, guide=guide, seed=1)
    exact = float(om.exact_minus2ll(om.weibull_death, cohort, truth, "scale").sum())
    assert abs(marginal.minus2ll - exact) < 4 * marginal.minus2ll_mc_error + 1e-6


def test_categories_that_were_not_recorded_and_have_no_mask_are_refused():
    def without_mask(cohort):
        typical = pyro.sample("typical", dist.Normal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            b = pyro.sample("b", dist.Normal(typical, 1.0))
            y = cohort["y"]
            linear = b[..., None].expand(y.values.shape)
            cuts = torch.tensor([0.0, 1.0], dtype=torch.float64)
            law = dist.OrderedLogistic(linear, cuts).to_event(1)
            pyro.sample("y", law, obs=y.values)

    cohort = om.simulated(om.ordered, om.trend_design(20), om.truth_of("ordered"), seed=1)
    pa.read_structure(without_mask, cohort)
    with pytest.raises(ModelError, match="were not recorded enter the density"):
        pa.read_structure(without_mask, pa.RandomMissing(0.3, 0.3)(cohort, torch.Generator()))


def test_a_deviation_that_vanishes_in_the_last_round_is_held():
    """The maximum lies at omega = 0, which the search reaches in its last round; what the data say
    about the other parameters is that of a model without a random effect.
    """
    model, truth = om.markov_chain, om.truth_of("markov_chain")
    design = om.trend_design(100)
    structure = pa.read_structure(model, design)
    cohort = pa.simulate_population(structure, design, truth, seed=1002)
    fit = pa.fit_population(model, cohort, seed=2, progress=False)
    assert fit.converged
    assert fit.undetermined == ()
    assert "the standard deviation of b cannot be distinguished from zero" in fit.message
    zeros = torch.zeros(1, len(cohort), 1, dtype=torch.float64)
    free = [0, 1, 3]

    def without_effect(x):
        at = {n: x[i] for i, n in enumerate(("typical", "slope", "stay"))}
        population = at | {"omega": torch.tensor(1.0).double()}
        return structure.log_density(cohort, zeros + at["typical"], population).observation.sum()

    best = maximize(without_effect, fit.vector[free])
    errors = torch.linalg.inv(observed_information(without_effect, best.vector)).diagonal().sqrt()
    assert torch.allclose(fit.vector[free], best.vector, atol=0.03 * float(errors.min()))
    found = fit.covariance.diagonal().sqrt()
    assert torch.allclose(found[free], errors, rtol=0.01)
    assert found[2].isnan()
