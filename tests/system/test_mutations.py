"""Mistakes that give plausible numbers are made on purpose; comparisons with exact results fail.

The same comparisons are made elsewhere in the tests. They pass with the library as it is. A mutant
is a patch of one line of the library, with which at least one of them must fail.
"""

import sys
from contextlib import contextmanager

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.cohort import individual_index
from pyro_amortized.diagnostics import calibrate
from pyro_amortized.guide.training_distributions import IndividualDistribution
from pyro_amortized.model import program_run, sites
from pyro_amortized.model.structure import ModelStructure
from pyro_amortized.networks.conditional_flow import FlowDistribution
from pyro_amortized.nlme.tables import clock_times as clock
from pyro_amortized.population.marginal_elbo import MarginalELBO
from pyro_amortized.runtime import random_numbers
from tests.exact import TRUTH, exact_log_marginal, exact_posterior, linear_cohort, linear_program

# Comparisons with exact results.


def marginal_likelihood_is_exact(guide, cohort):
    likelihood = pa.marginal_likelihood(
        linear_program, cohort, TRUTH, guide=guide, num_draws=1000, seed=1
    )
    z = (likelihood.log_likelihood - exact_log_marginal(cohort, TRUTH)) / likelihood.mc_error.clamp(
        min=1e-3
    )
    assert z.abs().max() < 4.5
    assert abs(float(z.mean())) < 4 / len(cohort) ** 0.5


def mean_weights_are_exact(guide, cohort):
    """Without control variates, which do not depend on the normalisation of the proposal."""
    individuals = pa.sample_individuals(
        guide.model, cohort, TRUTH, guide=guide, num_draws=1000, seed=1
    )
    estimate = individuals.estimate
    z = (estimate.log_mean - exact_log_marginal(cohort, TRUTH)) / estimate.mc_error
    assert z.abs().max() < 4.5


def posteriors_are_exact(guide, cohort):
    individuals = pa.sample_individuals(
        guide.model, cohort, TRUTH, guide=guide, num_draws=1000, seed=1
    )
    mean, covariance = exact_posterior(cohort, TRUTH)
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert ((individuals.moments()[0] - mean) / sd).abs().max() < 0.4


def positive_program(cohort):
    with pyro.plate("individual", len(cohort)):
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        y = cohort["y"]
        distribution = dist.Normal(rate[:, None] + 0 * y.times, 0.5).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


def transformed_density_is_exact(guide, cohort):
    """Density of the unconstrained coordinate of a Gamma distribution: p(x) x."""
    few = linear_cohort(3, 4, seed=5)
    structure = pa.read_structure(positive_program, few)
    z = torch.linspace(-1, 1, 6).double().reshape(2, 3, 1)
    density = structure.log_density(few, z, {}).individual
    expected = dist.Gamma(3.0, 2.0).log_prob(z.exp()) + z
    assert torch.allclose(density, expected.squeeze(-1), atol=1e-6)


def minibatches_are_unbiased(guide, cohort):
    """The loss of two halves averages to that of the whole, at one population."""
    vector = guide.structure.unconstrain_population(guide.structure.check_population(TRUTH))
    placed = guide.at(vector, 1e-9 * torch.eye(len(vector)).double())

    def loss(part):
        pyro.set_rng_seed(3)
        with torch.no_grad():
            elbo = MarginalELBO(200, num_individuals=len(cohort))
            return elbo.loss(linear_program, placed, part)

    halves = [loss(cohort[: len(cohort) // 2]), loss(cohort[len(cohort) // 2 :])]
    assert abs(sum(halves) / 2 - loss(cohort)) < 2.0


def hours_are_hours(guide, cohort):
    frame = pd.DataFrame(
        {"ID": [1, 1, 1], "TIME": ["08:00", "09:30", "20:00"], "DV": [1.0, 2.0, 3.0]}
    )
    read = nlme.read_table(frame, time_unit="h")
    assert read["dv"].times[0].tolist() == pytest.approx([8.0, 9.5, 20.0])


def seeds_count(guide, cohort):
    one, same, other = (
        pa.sample_individuals(guide.model, cohort[:4], TRUTH, guide=guide, num_draws=50, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.unconstrained, same.unconstrained)
    assert not torch.equal(one.unconstrained, other.unconstrained)


def ranks_are_uniform(guide, cohort):
    little = pa.Resample(cohort, pa.RandomMissing(0.8, 1.0))
    calibration = calibrate(guide, little, num_individuals=300, num_draws=300, num_ranks=49, seed=1)
    assert min(calibration.uniform_p_values().values()) > 1e-3


def simulations_are_those_of_the_prior(guide, cohort):
    simulated = pa.simulate_population(guide.structure, cohort[[0]].repeat(4000), TRUTH, 1)
    y = simulated["y"]
    design = torch.stack([torch.ones_like(y.times), y.times], -1)[0]
    mean = design @ TRUTH["mean"]
    sd = ((design**2) @ TRUTH["omega"] ** 2 + TRUTH["sigma"] ** 2).sqrt()
    seen = y.observed[0]
    assert ((y.values.mean(0) - mean) / sd)[seen].abs().max() < 5 / 4000**0.5
    assert (y.values.std(0) / sd - 1)[seen].abs().max() < 0.06


FLOORS = [  # the cheap ones first: a mutant is noticed by the first that fails
    hours_are_hours,
    transformed_density_is_exact,
    seeds_count,
    simulations_are_those_of_the_prior,
    minibatches_are_unbiased,
    posteriors_are_exact,
    marginal_likelihood_is_exact,
    mean_weights_are_exact,
    ranks_are_uniform,
]


# Mutants: what is patched, and with what.


def _ignored_mask(real):
    def site_log_prob(site):
        bare = dict(site, mask=None)
        while hasattr(bare["fn"], "base_dist"):
            bare["fn"] = bare["fn"].base_dist
        log_prob = bare["fn"].log_prob(site["value"])
        return log_prob.sum(-1) if site["fn"].event_dim else log_prob

    return site_log_prob


def _in_reverse(real):
    return lambda key, size: real(key, size).flip(0)


def _shifted_density(amount):
    """Of a method that gives draws and their log density, the density."""

    def patch(real):
        def broken(*args):
            draws, log_prob = real(*args)
            return draws, log_prob + amount

        return broken

    return patch


def _shifted(amount):
    def patch(real):
        return lambda self, *args, **kwargs: real(self, *args, **kwargs) + amount

    return patch


def _one_seed(real):
    return lambda seed: torch.Generator().manual_seed(7)


def _own_seed(real):
    return lambda seed: torch.Generator().manual_seed(int(torch.randint(10**6, ())))


def _unscaled(real):
    return lambda self, num: 1.0


def _without_jacobian(real):
    return lambda self: torch.zeros_like(real(self))


MUTANTS = {
    "the mask is ignored": (sites, "site_log_prob", _ignored_mask),
    "the Jacobian is left out": (program_run.Assign, "log_abs_det", _without_jacobian),
    "minibatches are not scaled": (MarginalELBO, "_scale", _unscaled),
    "individuals come in another order": (individual_index, "positions", _in_reverse),
    "hours are minutes": (clock, "UNITS", lambda real: {**real, "h": 60.0}),
    "every seed is the same": (random_numbers, "make_generator", _one_seed),
    "no seed is the same": (random_numbers, "make_generator", _own_seed),
    "training draws from elsewhere": (IndividualDistribution, "draw_with", _shifted(1.5)),
    "log q is off by a constant": (FlowDistribution, "sample_with_log_prob", _shifted_density(0.3)),
    "simulated individuals are shifted": (ModelStructure, "draw_individuals", _shifted(0.1)),
}


# Noticed only by the dear comparisons.
LATE = {
    "individuals come in another order",
    "training draws from elsewhere",
    "log q is off by a constant",
}


@contextmanager
def mutated(monkeypatch, name):
    """One mutant, in its module and in every module that imported it by name."""
    owner, attribute, patch = MUTANTS[name]
    real = getattr(owner, attribute)
    broken = patch(real)
    modules = [m for key, m in list(sys.modules.items()) if key.startswith("pyro_amortized")]
    holders = [m for m in modules if vars(m).get(attribute) is real]
    with monkeypatch.context() as context:
        for holder in {id(x): x for x in (owner, *holders)}.values():
            context.setattr(holder, attribute, broken)
        yield


@pytest.mark.parametrize("floor", FLOORS)
def test_floors_hold(floor, linear, linear_guide):
    floor(linear_guide, linear)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LATE else ()) for n in MUTANTS]
)
def test_mutants_are_noticed(name, linear, linear_guide, monkeypatch):
    noticed = []
    with mutated(monkeypatch, name):
        for floor in FLOORS:
            try:
                floor(linear_guide, linear)
            except (AssertionError, pa.AmortizedError):
                noticed.append(floor.__name__)
                break
    assert noticed, f"nothing notices that {name}"
