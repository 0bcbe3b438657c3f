"""Runs of many draws together give what single runs give."""

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.model import joint_runs, value_log_probs
from pyro_amortized.runtime.random_numbers import make_generator
from tests.exact import linear_cohort, linear_program


def scaled(cohort):
    """The support of the individual parameter depends on the population."""
    top = pyro.sample("top", dist.Gamma(8.0, 4.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        size = pyro.sample("size", dist.Uniform(0.0, top))
        y = cohort["y"]
        error = dist.Normal(size[..., None].expand_as(y.values), sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def places(structure, cohort, num):
    generator = make_generator(3)
    populations = structure.draw_populations(cohort, num, generator)
    draws = [structure.draw_individuals(cohort, p, 1, generator) for p in populations]
    vectors = torch.stack([structure.unconstrain_population(p) for p in populations])
    return torch.cat(draws), vectors, populations


def check_against_single_runs(model, cohort):
    structure = pa.read_structure(model, cohort)
    draws, vectors, populations = places(structure, cohort, 7)
    found = joint_runs(structure, cohort, draws, vectors, make_generator(1))
    for k, population in enumerate(populations):
        part = draws[k : k + 1]
        density = structure.log_density(cohort, part, population)
        by_value = value_log_probs(structure, cohort, part, population)["y"][0]
        torch.testing.assert_close(found.log_prob["y"][k], by_value)
        torch.testing.assert_close(found.log_prob["y"][k].sum(-1), density.observation[0])
        values = structure.constrained_draws(cohort, part, population)
        for name, x in values.items():
            torch.testing.assert_close(found.values[name][k], x[0])
    return structure, found


def test_many_populations_in_one_run_have_the_densities_of_single_runs():
    cohort = linear_cohort(num=9, seed=2)
    structure, found = check_against_single_runs(linear_program, cohort)
    draws, vectors, populations = places(structure, cohort, 7)
    for k, population in enumerate(populations):  # the sites are real: their density needs no more
        expected = structure.log_individual(cohort, draws[k : k + 1], population)[0]
        torch.testing.assert_close(found.log_prior["phi"][k], expected)
    many = 400
    again = vectors[:1].expand(many, -1), draws[:1].expand(many, -1, -1)
    new = joint_runs(structure, cohort, again[1], again[0], make_generator(5)).simulated["y"]
    mean = structure.predicted_mean(cohort, draws[:1], populations[0])["y"][0]
    z = (new.mean(0) - mean) / (populations[0]["sigma"] / many**0.5)
    assert 0.75 < float(z.square().mean().sqrt()) < 1.25  # 9 x 6 values: 1 +- 0.1


def test_a_support_that_depends_on_the_population_is_that_of_each_draw():
    series = pa.Series(torch.zeros(4, 2).double(), torch.rand(4, 2).double())
    check_against_single_runs(scaled, pa.Cohort({"y": series}))
