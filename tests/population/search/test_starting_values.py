import torch

import pyro_amortized as pa
from pyro_amortized.population.search import starting_values
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.starting_values import StartSettings, locate_population
from tests.exact import exact_fit, linear_program


def test_the_prior_scale_is_drawn_once(linear, linear_guide, monkeypatch):
    """The starts measure their steps in the units of the rounds and of the standard errors."""
    monkeypatch.setattr(starting_values, "START", StartSettings(max_individuals=10, max_whole=20))
    used, run_rounds = [], starting_values.run_rounds

    def watched(search, *arguments):
        used.append(search.scale)
        return run_rounds(search, *arguments)

    monkeypatch.setattr(starting_values, "run_rounds", watched)
    fit = pa.fit_population(
        linear_program, linear, guide=linear_guide, num_draws=300, num_starts=2, seed=5
    )
    assert len(used) == 2  # the best of two candidates, on a part and on all individuals
    assert all(torch.equal(scale, fit.search.scale) for scale in used)


def test_locate_population_finds_the_neighbourhood(linear, linear_guide):
    few = linear[:24]  # of more it takes as many at random
    vector, _, covariance = exact_fit(few)
    generator = torch.Generator().manual_seed(3)
    search = Search.begin(
        linear_guide.structure, linear_guide, few, "maximum likelihood", generator
    )
    located = locate_population(search, seed=generator)
    assert ((located - vector).abs() < covariance.diagonal().sqrt()).all()
