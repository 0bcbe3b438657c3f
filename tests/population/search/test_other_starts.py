"""A fit that ended where two populations of a mixture are equal, which determines no share."""

import pyro
import pyro.distributions as dist
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.other_starts import other_start
from pyro_amortized.runtime.random_numbers import make_generator
from tests.population.search.test_flat_directions import with_bioavailability

TIMES = torch.tensor([0.5, 1.0, 2.0, 4.0, 6.0]).double()


def two_rates(cohort):
    """Two populations of logarithms of a rate."""
    low = pyro.sample("low", dist.Normal(-1.0, 1.0))
    gap = pyro.sample("gap", dist.HalfNormal(1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        parts = dist.Normal(torch.stack([low, low + gap], -1), torch.stack([omega, omega], -1))
        shares = dist.Categorical(torch.stack([1 - share, share], -1))
        phi = pyro.sample("phi", dist.MixtureSameFamily(shares, parts))
        y = cohort["y"]
        curve = 5.0 * torch.exp(-phi.exp()[..., None] * y.times)
        pyro.sample("y", dist.Normal(curve, sigma[..., None]).to_event(1), obs=y.values)


def two_rates_cohort(num=40):
    generator = torch.Generator().manual_seed(3)
    z, noise = (torch.randn(num, k, generator=generator).double() for k in (1, len(TIMES)))
    location = torch.where(torch.arange(num)[:, None] < 0.35 * num, -0.2, -1.5)
    values = 5 * torch.exp(-torch.exp(location + 0.25 * z) * TIMES) + 0.3 * noise
    return pa.Cohort({"y": pa.Series(TIMES.expand(num, -1), values)})


def search_of(model, cohort):
    structure = pa.read_structure(model, cohort)
    generator = make_generator(0)
    return Search.begin(structure, None, cohort, "maximum likelihood", generator), generator


def exact(cohort, population):
    """Log likelihood by a sum over a grid of the logarithm of the rate."""
    p = {name: x.double() for name, x in population.items()}
    grid = torch.linspace(-5.0, 3.0, 2001).double()
    first, second = (dist.Normal(p["low"] + x, p["omega"]).log_prob(grid) for x in (0, p["gap"]))
    prior = torch.logaddexp((1 - p["share"]).log() + first, p["share"].log() + second)
    curve = 5.0 * torch.exp(-grid.exp()[:, None] * TIMES)
    values = dist.Normal(curve, p["sigma"]).log_prob(cohort["y"].values[:, None]).sum(-1)
    return float((torch.logsumexp(values + prior, 1) + torch.log(torch.tensor(0.004))).sum())


def test_two_populations_that_became_equal_are_left():
    cohort = two_rates_cohort()
    search, generator = search_of(two_rates, cohort)
    equal = {"low": -1.05, "gap": 0.005, "omega": 0.65, "share": 0.9, "sigma": 0.3}
    equal = {name: torch.tensor(x) for name, x in equal.items()}
    vector = search.structure.unconstrain_population(equal)
    start = other_start(search, vector, num_starts=4, fixed=None, generator=generator)
    found = search.structure.constrain_population(start.vector)
    truth = {"low": -1.5, "gap": 1.3, "omega": 0.25, "share": 0.35, "sigma": 0.3}
    truth = {name: torch.tensor(x) for name, x in truth.items()}
    assert exact(cohort, found) > exact(cohort, truth) - 1.0 > exact(cohort, equal) + 3.0


def test_where_the_model_is_to_blame_there_is_no_other_start():
    """The bioavailability is not determined anywhere."""
    search, generator = search_of(with_bioavailability, quickstart.cohort)
    vector = search.structure.unconstrain_population(search.structure.initial_population())
    assert other_start(search, vector, num_starts=4, fixed=None, generator=generator) is None
