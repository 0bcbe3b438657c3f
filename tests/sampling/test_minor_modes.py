"""Modes that no draw has reached: absorption and elimination exchanged (flip-flop)."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.cohort import Cohort, Doses, Series
from pyro_amortized.model import read_structure
from pyro_amortized.numerics.newton_steps import newton, stencil
from pyro_amortized.sampling import minor_modes
from pyro_amortized.sampling.individual_sampler import make_sampler
from pyro_amortized.sampling.minor_modes import EFFORT, SearchEffort
from pyro_amortized.sampling.sampler import Sampler
from pyro_amortized.sampling.sampling_stage import Stage
from pyro_amortized.sampling.student_mixture import StudentMixture
from pyro_amortized.sampling.weighted_draws import Refinement, Sampled
from tests.exact import TRUTH, exact_log_marginal, linear_program
from tests.sampling.targets import NormalProposal

TIMES = torch.tensor([0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24], dtype=torch.float64)
POPULATION = {
    "typical": torch.tensor([-0.9, 1.0, 3.0], dtype=torch.float64),
    "omega": torch.tensor([0.6, 0.3, 0.5], dtype=torch.float64),
    "sigma": torch.tensor(0.03, dtype=torch.float64),
}


def oral(cohort):
    """One compartment with absorption; the prediction is the same with ka and CL / V exchanged."""
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.0, 1.0, 3.0]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["y"]
        prediction = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        pyro.sample("y", dist.Normal(prediction, sigma[..., None]).to_event(1), obs=y.values)


def separated(num=4):
    """Individuals whose ka is 1.8 to 2.5 times CL / V, with narrow posteriors."""
    phi = torch.tensor([[-0.9, 1.0, 2.5], [-0.6, 1.0, 2.6], [-0.8, 0.9, 2.6], [-0.7, 1.1, 2.6]])
    phi = phi.double()[:num]
    return simulated(phi, 0.03, torch.Generator().manual_seed(1)), phi


def simulated(phi, noise_sd, generator):
    """A cohort with parameters, shape ``(individual, 3)``, and a residual error."""
    num, (ka, cl, v) = len(phi), phi.exp().unbind(-1)
    doses = Doses(torch.zeros(num, 1).double(), torch.full((num, 1), 100.0).double())
    times = TIMES.expand(num, -1)
    clean = nlme.one_compartment(times, doses, ka=ka, cl=cl, v=v)
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return Cohort({"y": Series(times, clean + noise_sd * noise)}, doses=doses)


def is_minor(draws):
    """Whether absorption is slower than elimination."""
    return draws[..., 0] < draws[..., 1] - draws[..., 2]


def exact_share(individuals, phi):
    """Share of the exchanged mode by the symmetry of the prediction: at the exchanged parameters
    the observations have the same density, the population another one, and the map (ka, CL, V) ->
    (CL / V, CL, CL / ka) keeps the volume of the logarithms.
    """
    draws = individuals.unconstrained
    exchanged = torch.stack(
        [draws[..., 1] - draws[..., 2], draws[..., 1], draws[..., 1] - draws[..., 0]], -1
    )
    normal = dist.Normal(POPULATION["typical"], POPULATION["omega"])
    log_ratio = (normal.log_prob(exchanged) - normal.log_prob(draws)).sum(-1)
    weights = individuals.weights * ~is_minor(draws)
    # Far draws without weight may have a ratio that is not finite.
    ratio = torch.where(weights > 0, log_ratio, 0.0).exp()
    odds = (weights * ratio).sum(0) / weights.sum(0)
    return odds / (1 + odds)


def deviations(individuals, phi):
    """Difference between the share of the exchanged mode and the exact one, its Monte Carlo error,
    and the exact share, shape ``(individual,)`` each.
    """
    weights, minor = individuals.weights, is_minor(individuals.unconstrained)
    share = (weights * minor).sum(0)
    error = (weights * (minor.double() - share)).pow(2).sum(0).sqrt()
    expected = exact_share(individuals, phi)
    return share - expected, error, expected


def test_the_exchanged_mode_is_found_with_its_share():
    cohort, phi = separated()
    for seed in range(3):
        individuals = pa.sample_individuals(
            oral, cohort, POPULATION, num_draws=1000, seed=seed, max_chains=0
        )
        difference, error, expected = deviations(individuals, phi)
        assert (expected > 0.01).all()
        assert float(error.norm()) < 0.2 * float(expected.sum())
        assert (difference.abs() < 4.5 * error).all()
        assert (individuals.num_modes >= 2).all()


def test_without_the_search_it_is_lost_in_silence(monkeypatch):
    """What the search is for: effective draws and Pareto k do not show the missing mode."""
    nothing = SearchEffort(max_values=0, max_values_of_others=0)
    monkeypatch.setattr(minor_modes, "EFFORT", nothing)
    cohort, phi = separated()
    individuals = pa.sample_individuals(
        oral, cohort, POPULATION, num_draws=1000, seed=0, max_chains=0
    )
    assert (individuals.num_modes == 0).all()
    share = (individuals.weights * is_minor(individuals.unconstrained)).sum(0)
    expected = exact_share(individuals, phi)
    lost = share < 0.1 * expected
    assert bool(lost[expected > 0.01].any())
    assert float(individuals.estimate.pareto_k[lost].max()) < 0.7


def test_where_not_all_can_be_searched_the_lowest_likelihood_per_value_is_first(
    linear, monkeypatch
):
    """A cohort for which the values that may be evaluated are enough for half of them."""
    counts = linear.num_recorded(["y"])
    per_value = EFFORT.num_starts * EFFORT.num_steps * len(stencil(2))
    effort = SearchEffort(max_values=int(counts.sum()) * per_value // 2)
    monkeypatch.setattr(minor_modes, "EFFORT", replace(effort, max_values_of_others=0))
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=400, seed=1)
    searched = individuals.num_modes > 0
    half = int(counts.sum()) // 2
    assert half - int(counts.max()) < int(counts[searched].sum()) <= half
    # Within the Monte Carlo error of 400 draws.
    per_value = individuals.estimate.log_mean / counts
    assert float(per_value[searched].max()) < float(per_value[~searched].min()) + 0.05


def test_the_others_are_searched_from_fewer_starts(monkeypatch):
    """None is searched from all starts, and half of them from eight."""
    cohort, phi = separated()
    per_value = EFFORT.num_starts_of_others * EFFORT.num_steps * len(stencil(3))
    most = cohort.num_values // 2 * per_value
    effort = SearchEffort(max_values=0, max_values_of_others=most)
    monkeypatch.setattr(minor_modes, "EFFORT", effort)
    individuals = pa.sample_individuals(
        oral, cohort, POPULATION, num_draws=1000, seed=1, max_chains=0
    )
    assert int((individuals.num_modes > 0).sum()) == 2
    difference, error, _ = deviations(individuals, phi)
    assert (difference.abs() < 4.5 * error)[individuals.num_modes > 1].all()


def test_modes_far_from_every_start_are_found():
    """Posteriors a thousandth as wide as the population: after six steps no start had come to the
    larger mode of one of these individuals, and its mixture stayed at the smaller one.
    """
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(6, 3, generator=generator).double()
    phi = torch.tensor([-0.7, 1.0, 2.6]) + torch.tensor([0.2, 0.2, 0.1]) * noise
    cohort = simulated(phi, 1e-4, generator)
    wide = POPULATION | {"omega": 3 * POPULATION["omega"], "sigma": torch.tensor(1e-4).double()}
    structure, rows = read_structure(oral, cohort), torch.arange(len(cohort))
    sampler = make_sampler(None, structure, cohort, wide)
    at_smaller = torch.stack([phi[:, 1] - phi[:, 2], phi[:, 1], phi[:, 1] - phi[:, 0]], -1)
    start = 1e-2 * torch.eye(3).double().expand(len(cohort), 3, 3)
    mode = newton(lambda x: sampler.target(x, rows), at_smaller, start, 12)
    nothing = torch.zeros(len(cohort), 1).double()
    one = StudentMixture(nothing, mode.location.unsqueeze(1), mode.scale_tril.unsqueeze(1))
    stages = torch.full((len(cohort),), int(Stage.MIXTURE))
    part = Refinement(stages, one.padded(5), one.padded(3), torch.zeros(len(cohort)).long())
    generator = torch.Generator().manual_seed(1)
    drawn = Sampled(sampler.from_mixture(part, 300, rows, generator), part)
    assert is_minor(drawn.weighted.draws[:, 1:]).double().mean() > 0.8
    searched = minor_modes.with_minor_modes(sampler, drawn, generator)
    assert (searched.refinement.num_modes >= 2).all()
    weights = searched.weighted.log_weights.softmax(0)
    share = (weights * is_minor(searched.weighted.draws)).sum(0)
    assert (share < 0.8).all()


def test_one_mode_stays_as_it_is(linear):
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=400, seed=1)
    assert individuals.num_modes.tolist() == [1] * len(linear)
    estimate = individuals.marginal_estimate
    z = (estimate.log_mean - exact_log_marginal(linear, TRUTH)) / estimate.mc_error
    assert float(z.abs().max()) < 5
    assert math.isfinite(float(z.sum()))


def test_the_modes_are_kept_in_the_next_draws():
    cohort, phi = separated()
    first = pa.sample_individuals(oral, cohort, POPULATION, num_draws=200, seed=1)
    again = pa.sample_individuals(oral, cohort, POPULATION, num_draws=1000, seed=2, before=first)
    difference, error, expected = deviations(again, phi)
    assert float(error.norm()) < 0.2 * float(expected.sum())
    assert (difference.abs() < 4.5 * error).all()


def test_modes_that_one_wide_component_covers_are_two():
    """Normals at -1 and 1, and a mixture of one component at 0."""
    wide = NormalProposal(0.0, 1.5)

    def target(draws, rows):
        parts = [dist.Normal(x, 0.4).log_prob(draws).sum(-1) for x in (-1.0, 1.0)]
        return torch.logaddexp(*parts)

    def population(num_draws, rows, generator):
        return wide.draw(num_draws, rows, generator)[0]

    sampler = Sampler(target, population, wide.log_prob, wide)
    generator, rows = torch.Generator().manual_seed(1), torch.arange(1)
    one = StudentMixture.single(torch.zeros(2).double(), torch.eye(2).double())
    part = Refinement(torch.tensor([Stage.MIXTURE]), one.padded(5), one.padded(3), torch.zeros(1))
    part = replace(part, num_modes=part.num_modes.long())
    drawn = Sampled(sampler.from_mixture(part, 200, rows, generator), part)
    searched = minor_modes.with_minor_modes(sampler, drawn, generator)
    assert searched.refinement.num_modes.tolist() == [2]
