"""Directions that the data do not determine, or only weakly, with an expanded likelihood."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.numerics.laplace import difference_steps
from pyro_amortized.numerics.maximization import observed_information
from pyro_amortized.population.likelihood import likelihood_choice
from pyro_amortized.population.likelihood.expanded_likelihood import ExpandedLikelihood
from pyro_amortized.population.likelihood.expansion_settings import EXPANSION
from pyro_amortized.population.likelihood.likelihood_choice import LikelihoodChoiceSettings
from pyro_amortized.population.search import information_check as module
from pyro_amortized.population.search.flat_directions import flat_directions, round_steps
from pyro_amortized.population.search.information_check import information_check

TIMES = torch.linspace(0.0, 2.0, 6).double()
SHAPE = 1.0 + 0.1 * TIMES.square()  # nearly the constant of the first individual parameter


def with_bioavailability(cohort):
    """The model of the README with F: only CL / F and V / F are determined."""
    typical = pyro.sample(
        "typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5, 0.0]), 1.0).to_event(1)
    )
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., :3], omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        series = cohort["concentration"]
        conc = nlme.one_compartment(series.times, cohort.doses, ka=ka, cl=cl, v=v)
        conc = typical[..., 3, None].exp() * conc
        distribution = dist.Normal(conc, sigma[..., None]).mask(series.observed).to_event(1)
        pyro.sample("concentration", distribution, obs=series.values)


def line_and_shape(cohort):
    """A line of each individual, and a shape for all that is nearly a constant."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    d = pyro.sample("d", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        y = cohort["y"]
        prediction = phi[..., :1] + phi[..., 1:] * y.times + d[..., None] * SHAPE
        pyro.sample("y", dist.Normal(prediction, sigma[..., None]).to_event(1), obs=y.values)


def exact_covariance(values, vector):
    """Inverse information of the marginal normal distribution at an unconstrained vector."""
    design = torch.stack([torch.ones_like(TIMES), TIMES], 1)

    def log_likelihood(z):
        center = design @ z[:2] + z[2] * SHAPE
        covariance = (design * (2 * z[3:5]).exp()) @ design.T
        covariance = covariance + (2 * z[5]).exp() * torch.eye(len(TIMES)).double()
        return dist.MultivariateNormal(center, covariance).log_prob(values).sum()

    return torch.linalg.inv(-torch.autograd.functional.hessian(log_likelihood, vector))


@pytest.fixture(scope="module")
def weak():
    """A fit in which d has half of the information of its prior, and its exact covariance."""
    generator = torch.Generator().manual_seed(4)
    random = torch.randn(24, 2 + len(TIMES), generator=generator).double()
    lines = 0.3 + 0.5 * random[:, :1] + (0.4 + 0.3 * random[:, 1:2]) * TIMES
    values = lines + 0.5 * SHAPE + 0.5 * random[:, 2:]
    cohort = pa.Cohort({"y": pa.Series(TIMES.expand(24, -1), values)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_choice, "CHOICE", LikelihoodChoiceSettings(max_exact=1000))
        fit = pa.fit_population(line_and_shape, cohort, seed=1, progress=False)
    return fit, exact_covariance(values, fit.vector)


@pytest.mark.slow
def test_bioavailability_beside_clearance_and_volume_is_named():
    fit = pa.fit_population(with_bioavailability, quickstart.cohort, seed=1, progress=False)
    assert fit.undetermined == ("typical[1]", "typical[2]", "typical[3]")
    assert not fit.converged
    assert fit.num_rounds <= 3
    assert fit.standard_errors["typical"].isnan().tolist() == [False, True, True, True]
    known = pa.fit_population(quickstart.model, quickstart.cohort, seed=1, progress=False)
    assert abs(fit.minus2ll - known.minus2ll) < 0.2
    ratio = fit.standard_errors["omega"] / known.standard_errors["omega"]
    assert ((ratio - 1).abs() < 0.03).all()


@pytest.mark.slow
def test_weakly_determined_parameter_has_its_exact_standard_error(weak):
    fit, covariance = weak
    place = fit.structure.population_names.index("d")
    exact = float(covariance[place, place].sqrt())
    assert exact > 0.7  # of the prior's standard deviation, 1
    assert fit.converged, fit.message
    assert float(fit.standard_errors["d"]) == pytest.approx(exact, rel=0.05)


@pytest.mark.slow
def test_wrong_information_is_computed_again(weak):
    """Information that the differences of an expansion have invented, in the weak direction."""
    fit, covariance = weak
    free = torch.ones_like(fit.vector, dtype=torch.bool)
    scale = fit.search.scale
    expanded = ExpandedLikelihood(fit.individuals, scale)
    check = information_check(fit.search.objective, expanded, fit.vector, scale, free)
    exact = torch.linalg.inv(covariance) * torch.outer(scale, scale)
    values, directions = torch.linalg.eigh(exact)
    weakest = directions[:, 0]
    wrong = exact + 20.0 * torch.outer(weakest, weakest)
    checked = check(wrong)
    assert float(weakest @ checked @ weakest) == pytest.approx(float(values[0]), rel=0.1)
    others = directions[:, 1:]
    assert torch.allclose(others.T @ checked @ others, others.T @ wrong @ others, rtol=0.01)


def test_rounds_do_not_move_along_flat_directions():
    scores = torch.tensor([[1.0, 1.0, 0.3], [-2.0, -2.0, 0.1], [0.5, 0.5, -0.4]]).double()
    flat, others, information = flat_directions(scores)
    expected = torch.tensor([1.0, -1.0, 0.0]).double() / 2**0.5
    assert flat.shape == (3, 1)
    assert abs(float(flat[:, 0] @ expected)) == pytest.approx(1.0)
    assert torch.allclose(others.T @ scores.T @ scores @ others, information.diag())
    scale = torch.tensor([1.0, 1.0, 2.0]).double()
    held = round_steps(scores / scale, scale, hold_flat=True)
    assert held.shape == (3, 2)
    assert (held / scale.unsqueeze(1)).T @ expected == pytest.approx(torch.zeros(2), abs=1e-12)
    assert round_steps(scores / scale, scale, hold_flat=False).shape == (3, 3)


def test_a_direction_with_a_slope_is_not_flat():
    scores = torch.full((400, 1), 0.004).double()  # information 0.006, slope 1.6
    assert flat_directions(scores)[0].shape == (1, 0)


def test_the_error_of_a_regression_is_taken_off(monkeypatch):
    """On the same draws, what remains is the information by differences."""
    few = replace(EXPANSION, max_coordinates=2)
    monkeypatch.setattr(module, "EXPANSION", few)
    fit = pa.fit_population(quickstart.model, quickstart.cohort, num_draws=200, seed=1)
    free, scale, objective = fit.free, fit.search.scale, fit.search.objective
    regressed = ExpandedLikelihood(fit.individuals, scale, settings=few)
    assert regressed.is_regressed
    parts = (fit.individuals, scale, None, regressed.following)
    by_differences = ExpandedLikelihood(*parts, settings=EXPANSION)
    assert not by_differences.is_regressed
    place = (fit.vector, difference_steps(regressed.following.scores, scale) * scale)
    found, expected = (
        observed_information(objective(x), *place) * torch.outer(scale, scale)
        for x in (regressed, by_differences)
    )
    check = information_check(objective, regressed, fit.vector, scale, free)
    corrected = found - check._error_of_regression(regressed)
    assert torch.allclose(corrected, expected, rtol=1e-6, atol=1e-4)
    assert (found - expected).abs().max() > 0.01
    monkeypatch.setattr(module, "INFORMATION", replace(module.INFORMATION, max_values=1000))
    assert not check._error_of_regression(regressed).any()  # too many evaluations
