"""Models of counts, categories and events with one random effect, and their exact likelihood.

The marginal likelihood of an individual is an integral over one normal variable. On an even grid of
401 points over nine standard deviations, the sum is exact to rounding for smooth densities.
"""

import math

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme

NUM_POINTS = 401
WIDTH = 9.0


def _trend(cohort):
    typical = pyro.sample("typical", dist.Normal(0.0, 2.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    return typical, slope, omega


def _predictor(cohort, typical, slope, omega):
    b = pyro.sample("b", dist.Normal(typical, omega))
    return b[..., None] + slope[..., None] * cohort["y"].times


def _observe(cohort, distribution):
    y = cohort["y"]
    pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def poisson(cohort):
    parameters = _trend(cohort)
    with pyro.plate("individual", len(cohort)):
        _observe(cohort, dist.Poisson(_predictor(cohort, *parameters).exp()))


def negative_binomial(cohort):
    parameters = _trend(cohort)
    size = pyro.sample("size", dist.LogNormal(0.5, 0.7))
    with pyro.plate("individual", len(cohort)):
        log_mean = _predictor(cohort, *parameters)
        r = size[..., None]
        _observe(cohort, dist.NegativeBinomial(r.expand(log_mean.shape), logits=log_mean - r.log()))


def zero_inflated(cohort):
    parameters = _trend(cohort)
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        rate = _predictor(cohort, *parameters).exp()
        _observe(cohort, dist.ZeroInflatedPoisson(rate, gate=gate[..., None].expand(rate.shape)))


def binary(cohort):
    parameters = _trend(cohort)
    with pyro.plate("individual", len(cohort)):
        _observe(cohort, dist.Bernoulli(logits=_predictor(cohort, *parameters)))


def ordered(cohort):
    parameters = _trend(cohort)
    step = pyro.sample("step", dist.LogNormal(0.5, 0.5))
    with pyro.plate("individual", len(cohort)):
        cuts = torch.stack([torch.zeros_like(step), step], -1)
        _observe(cohort, dist.OrderedLogistic(_predictor(cohort, *parameters), cuts[..., None, :]))


def markov_plain(cohort):
    """The category before is read from the data."""
    parameters = _trend(cohort)
    stay = pyro.sample("stay", dist.Normal(0.0, 2.0))
    with pyro.plate("individual", len(cohort)):
        values = cohort["y"].values
        before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)
        logits = _predictor(cohort, *parameters) + stay[..., None] * before
        _observe(cohort, dist.Bernoulli(logits=logits))


def markov_chain(cohort):
    """The same chain as one distribution, which sums over categories that are missing."""
    parameters = _trend(cohort)
    stay = pyro.sample("stay", dist.Normal(0.0, 2.0))
    with pyro.plate("individual", len(cohort)):
        y = cohort["y"]
        predictor = _predictor(cohort, *parameters)

        def both(logits):
            p = torch.sigmoid(logits)
            return torch.stack([1 - p, p], -1)

        initial, later = both(predictor[..., 0]), predictor[..., 1:]
        transitions = torch.stack([both(later), both(later + stay[..., None])], -2)
        chain = nlme.MarkovCategories(initial, transitions, y.observed)
        pyro.sample("y", chain, obs=y.values)


TREND = {"typical": -0.5, "slope": 0.2, "omega": 0.8}
TRUTHS = {
    "poisson": TREND,
    "negative_binomial": TREND | {"size": 2.0},
    "zero_inflated": TREND | {"typical": 0.5, "gate": 0.3},
    "binary": TREND | {"omega": 1.0},
    "ordered": TREND | {"step": 1.5, "omega": 1.0},
    "markov_plain": TREND | {"stay": 1.5, "typical": -1.0},
    "markov_chain": TREND | {"stay": 1.5, "typical": -1.0},
}
MODELS = {
    "poisson": poisson,
    "negative_binomial": negative_binomial,
    "zero_inflated": zero_inflated,
    "binary": binary,
    "ordered": ordered,
    "markov_plain": markov_plain,
    "markov_chain": markov_chain,
}


def truth_of(name):
    return {n: torch.tensor(x, dtype=torch.float64) for n, x in TRUTHS[name].items()}


def trend_design(num=60, times=(0.0, 1.0, 2.0, 3.0)):
    """Zeros in place of values: a support of counts and categories contains them."""
    design = nlme.study(list(times), num_individuals=num, series="y")
    return design.with_values({"y": torch.zeros_like(design["y"].values)})


# Events.


def weibull_death(cohort):
    """A Weibull hazard with a lognormal scale and the effect of an arm."""
    scale = pyro.sample("scale", dist.Normal(2.0, 1.0))
    shape = pyro.sample("shape", dist.LogNormal(0.3, 0.5))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(scale, omega))
        death = cohort["death"]
        ratio = torch.exp(effect * cohort.covariates["arm"])
        hazard = nlme.weibull_hazard(b.exp(), shape).scaled(ratio)
        pyro.sample("death", nlme.EventTimes(hazard, death), obs=death.values)


def event_design(num=100, end=10.0, num_events=1):
    ends = torch.full((num, num_events), end, dtype=torch.float64)
    series = pa.Series(ends, torch.stack([ends, torch.zeros_like(ends)], -1))
    arm = torch.arange(num, dtype=torch.float64) % 2
    return pa.Cohort({"death": series}, covariates={"arm": arm})


def simulated(model, design, truth, seed):
    return pa.simulate_population(pa.read_structure(model, design), design, truth, seed=seed)


def exact_minus2ll(model, cohort, population, center="typical", spread="omega"):
    """-2 log marginal likelihood of every individual, shape ``(individual,)``."""
    structure = pa.read_structure(model, cohort)
    mean, sd = float(population[center]), float(population[spread])
    grid = mean + sd * WIDTH * torch.linspace(-1, 1, NUM_POINTS, dtype=torch.float64)
    draws = grid[:, None, None].expand(-1, len(cohort), 1)
    with torch.no_grad():
        density = sum(structure.log_density(cohort, draws, population))
    return -2 * (torch.logsumexp(density, 0) + math.log(float(grid[1] - grid[0])))


# A marker and the event that ends it.

JOINT = {
    "typical": torch.tensor([5.0, -0.3], dtype=torch.float64),
    "omega": torch.tensor([0.8, 0.25], dtype=torch.float64),
    "sigma": torch.tensor(0.4, dtype=torch.float64),
    "log_base": torch.tensor(1.0, dtype=torch.float64),
    "link": torch.tensor(-0.7, dtype=torch.float64),
}


def joint(cohort, name="dropout"):
    """A line for the marker; its current value acts on the hazard, so that low values drop out."""
    typical = pyro.sample("typical", dist.Normal(torch.tensor([5.0, 0.0]), 2.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    log_base = pyro.sample("log_base", dist.Normal(0.0, 2.0))
    link = pyro.sample("link", dist.Normal(0.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        level, slope = phi.unbind(-1)
        y, event = cohort["marker"], cohort[name]
        line = level[..., None] + slope[..., None] * y.times
        error = dist.Normal(line, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("marker", error, obs=y.values)
        hazard = nlme.gompertz_hazard(torch.exp(log_base + link * level), link * slope)
        pyro.sample(name, nlme.EventTimes(hazard, event), obs=event.values)


def marker_alone(cohort):
    """The same marker, without the reason why it ends."""
    typical = pyro.sample("typical", dist.Normal(torch.tensor([5.0, 0.0]), 2.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        y = cohort["marker"]
        line = phi[..., :1] + phi[..., 1:] * y.times
        error = dist.Normal(line, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("marker", error, obs=y.values)


def joint_design(num=100, end=6.0, name="dropout"):
    times = torch.arange(0.0, end + 0.5, 1.0).double().expand(num, -1).clone()
    marker = pa.Series(times, torch.ones_like(times))
    events = event_design(num, end)["death"]
    return pa.Cohort({"marker": marker, name: events})


def exact_joint_minus2ll(model, cohort, population, num_points=61, width=7.0):
    """As :func:`exact_minus2ll`, over a grid of two normal variables around the posterior of each
    individual, which the marker makes narrow.
    """
    structure = pa.read_structure(model, cohort)
    draws = pa.sample_individuals(model, cohort, population, num_draws=400, seed=9)
    mean = draws.moments()[0]
    covariance = _covariance(draws)
    factor = torch.linalg.cholesky(covariance)
    z = width * torch.linspace(-1, 1, num_points, dtype=torch.float64)
    nodes = torch.cartesian_prod(z, z)
    places = mean + (factor @ nodes.T.unsqueeze(0)).movedim(-1, 0)
    with torch.no_grad():
        density = sum(structure.log_density(cohort, places, population))
    cell = 2 * (z[1] - z[0]).log() + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -2 * (torch.logsumexp(density, 0) + cell)


def _covariance(draws):
    values = draws.resampled(2000, 1)
    centered = values - values.mean(0)
    return torch.einsum("kni,knj->nij", centered, centered) / len(values)


def poisson_counts(cohort):
    """Poisson counts whose log rate varies between individuals."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        log_rate = pyro.sample("log_rate", dist.Normal(mean, omega))
        y = cohort["y"]
        rate = (log_rate[..., None] + 0 * y.times).exp()
        pyro.sample("y", dist.Poisson(rate).mask(y.observed).to_event(1), obs=y.values)
