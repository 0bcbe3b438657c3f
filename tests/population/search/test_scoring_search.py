"""Rounds of scoring, against closed forms."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.model import read_structure
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.population.search import starting_values
from pyro_amortized.population.search.fit_rounds import Start, run_rounds
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.scoring_search import ScoringSearch, damped_step
from pyro_amortized.population.search.starting_values import START, StartSettings, find_start
from tests.exact import exact_fit, exact_log_marginal, linear_cohort, linear_program

TIMES = torch.linspace(0.25, 4.0, 12).double()
DECAY_TRUTH = {"mean": 5.0, "omega": 1.0, "rate": 0.5, "sigma": 0.01}


def decay(cohort):
    """Amplitudes of the individuals and a rate that they share, with precise data: the amplitudes
    have to follow the rate.
    """
    mean = pyro.sample("mean", dist.Normal(4.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(2.0))
    rate = pyro.sample("rate", dist.LogNormal(-1.0, 0.5))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.1))
    y = cohort["y"]
    with pyro.plate("individual", len(cohort)):
        amplitude = pyro.sample("amplitude", dist.Normal(mean, omega))
        prediction = amplitude[..., None] * (-rate[..., None] * y.times).exp()
        noise = dist.Normal(prediction, sigma[..., None])
        pyro.sample("y", noise.mask(y.observed).to_event(1), obs=y.values)


def decay_log_likelihood(values, vector):
    """The closed form: the values of an individual are normal."""
    mean, (omega, rate, sigma) = vector[0], vector[1:].exp()
    shape = (-rate * TIMES).exp()
    covariance = omega**2 * torch.outer(shape, shape) + sigma**2 * torch.eye(len(TIMES)).double()
    return torch.distributions.MultivariateNormal(mean * shape, covariance).log_prob(values).sum()


def search_of(program, cohort):
    generator = torch.Generator().manual_seed(2)
    structure = read_structure(program, cohort)
    return Search.begin(structure, None, cohort, "maximum likelihood", generator), generator


def test_a_step_is_that_of_the_scores_and_as_long_as_the_level_says():
    cohort = linear_cohort(num=60, seed=3)
    vector, _, covariance = exact_fit(cohort)
    search, generator = search_of(linear_program, cohort)
    scoring, start = ScoringSearch.like(search), vector + 0.5 * covariance.diagonal().sqrt()
    likelihood = scoring.likelihood(scoring.draw(start, 200, generator))
    scores = search.scale * likelihood.following.scores
    information = (len(scores) - 1) * scores.T.cov()
    slope = scores.sum(0)
    step = torch.linalg.solve(information + torch.eye(len(vector)), slope)
    nothing = torch.zeros(len(vector), dtype=torch.bool)
    for level, length in ((2, 1.0), (3, 0.5), (4, 0.2)):
        ascent = scoring.ascend(likelihood, start, nothing, level=level)
        moved = length * step
        assert torch.allclose(ascent.optimum.vector, start + moved * search.scale, atol=1e-9)
        gain = float(slope @ moved - 0.5 * moved @ information @ moved)
        assert abs(ascent.gain - gain) < 1e-9


def test_a_step_is_limited_where_the_information_is_nearly_zero():
    information = torch.tensor([[100.0, 1.0], [1.0, 0.02]]).double()
    slope = torch.tensor([20.0, 3.0]).double()
    step, curvature = damped_step(slope, information)
    assert float(step.abs().max()) <= 0.5
    assert float(slope @ step) > curvature > 0  # it rises
    assert float(step[0]) > 0.1  # the determined parameter still moves, by about 0.2


def test_they_reach_a_maximum_that_lies_a_hundred_standard_errors_away():
    shape = torch.zeros(30, len(TIMES)).double()
    design = pa.Cohort({"y": pa.Series(TIMES.expand(30, -1), shape)})
    truth = {name: torch.tensor(x).double() for name, x in DECAY_TRUTH.items()}
    cohort = pa.simulate_population(read_structure(decay, design), design, truth, seed=1)
    search, generator = search_of(decay, cohort)
    begin = search.structure.unconstrain_population(truth)
    values = cohort["y"].values
    best = maximize(lambda x: decay_log_likelihood(values, x), begin)
    hessian = torch.autograd.functional.hessian(
        lambda x: decay_log_likelihood(values, x), best.vector
    )
    errors = (-hessian).inverse().diagonal().sqrt()
    rate = best.vector[2] + 100 * errors[2]
    others = torch.tensor([0, 1, 3])

    def at(x):
        return best.vector.index_put((others,), x).index_fill(0, torch.tensor(2), float(rate))

    start = at(maximize(lambda x: decay_log_likelihood(values, at(x)), best.vector[others]).vector)
    nothing, schedule = torch.zeros(4, dtype=torch.bool), START.scoring_schedule()
    rounds = run_rounds(ScoringSearch.like(search), Start(start), nothing, schedule, generator)
    reached = float(decay_log_likelihood(values, rounds.ascent.optimum.vector))
    assert best.value - reached < START.min_scoring_gain


def test_a_fit_starts_with_them_where_the_modal_rounds_do_not_arrive(monkeypatch):
    cohort = linear_cohort(num=60, seed=3)
    few = replace(StartSettings(), max_modal_rounds=1)
    monkeypatch.setattr(starting_values, "START", few)
    search, generator = search_of(linear_program, cohort)
    start = find_start(search, num_starts=1, fixed=None, generator=generator)
    assert start.near
    reached = exact_log_marginal(cohort, search.structure.constrain_population(start.vector))
    assert exact_fit(cohort)[1] - float(reached.sum()) < START.min_scoring_gain
