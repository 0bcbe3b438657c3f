"""Two models that are simulated although their likelihood is known, each with its twin."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution

import pyro_amortized as pa
from pyro_amortized import Cohort, Series, nlme


# Ornstein-Uhlenbeck.

SDE_TIMES = torch.arange(1, 11, dtype=torch.float64) / 2
STEPS = 50
SDE_TRUTH = {
    "typical": torch.tensor([0.0, 1.0]),
    "omega": torch.tensor([0.3, 0.4]),
    "kappa": torch.tensor(0.4),
    "noise": torch.tensor(0.15),
}


def diffusion_program(cohort, *, twin=False):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.0, 0.7]), 0.7).to_event(1))
    omega = pyro.sample("omega", dist.LogNormal(-1.0, 0.5).expand([2]).to_event(1))
    kappa = pyro.sample("kappa", dist.LogNormal(-1.0, 0.4))
    noise = pyro.sample("noise", dist.LogNormal(-2.0, 0.4))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        rate, level = phi.exp().unbind(-1)
        y = cohort["y"]
        kappa, noise = kappa.expand(len(cohort)), noise.expand(len(cohort))
        if twin:
            pyro.sample("y", diffusion_distribution(rate, level, kappa, noise), obs=y.values)
            return
        path = nlme.euler_maruyama(
            lambda t, x, p: p["rate"][:, None] * (p["level"][:, None] - x),
            lambda t, x, p: p["kappa"][:, None],
            torch.zeros(1),
            y.times,
            {"rate": rate, "level": level, "kappa": kappa},
            num_steps=STEPS,
        )[..., 0]
        distribution = dist.Normal(path, noise[:, None]).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


def diffusion_distribution(rate, level, kappa, noise):
    """Distribution of the observations of the same Euler-Maruyama steps."""
    step = SDE_TIMES[-1] / STEPS
    index = (SDE_TIMES / step).round()
    stable = rate * step < 1  # faster ones are none that could be simulated by these steps
    rate = torch.where(stable, rate, 1.0).clamp(min=1e-6)
    keep = (1 - rate * step)[:, None]
    mean = level[:, None] * (1 - keep**index)
    low = torch.minimum(index[:, None], index)
    gap = (index[:, None] - index).abs()
    keep = keep[..., None]
    scale = (kappa**2 * step)[:, None, None]
    cov = scale * keep**gap * (1 - keep ** (2 * low)) / (1 - keep**2)
    cov = cov + (noise**2)[:, None, None] * torch.eye(len(index), dtype=mean.dtype)
    mean = torch.where(stable[:, None], mean, 1e6)
    return dist.MultivariateNormal(mean, covariance_matrix=cov)


def diffusion_twin(cohort):
    diffusion_program(cohort, twin=True)


# Immigration and death.

COUNT_TIMES = torch.tensor([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
COUNT_TRUTH = {"typical": torch.tensor([2.5, -0.3]), "omega": torch.tensor([0.4, 0.3])}


def stochastic_program(cohort, *, twin=False):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([2.0, 0.0]), 0.6).to_event(1))
    omega = pyro.sample("omega", dist.LogNormal(-1.0, 0.5).expand([2]).to_event(1))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        birth, death = phi.exp().unbind(-1)
        y = cohort["y"]
        if twin:
            pyro.sample("y", ImmigrationDeath(birth, death, y.times), obs=y.values)
            return
        distribution = nlme.Simulated(
            lambda: simulate_counts(birth, death, y.times), y.values.shape
        )
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def simulate_counts(birth, death, times):
    """Exact: survivors of the last count, and the immigrants since then."""
    birth, death = birth.to(times), death.to(times)
    now, last, counts = torch.zeros_like(birth), torch.zeros_like(birth), []
    for t in times.unbind(-1):
        stay = torch.exp(-death * (t - last))
        now = torch.binomial(now, stay) + torch.poisson(birth / death * (1 - stay))
        last = t
        counts.append(now)
    return torch.stack(counts, -1)


class ImmigrationDeath(TorchDistribution):
    """Counts at given times; one event per individual."""

    has_rsample = False

    def __init__(self, birth, death, times):
        self.birth, self.death, self.times = birth, death, times
        super().__init__(birth.shape, times.shape[-1:], validate_args=False)

    support = dist.constraints.independent(dist.constraints.nonnegative, 1)

    def expand(self, batch_shape, _instance=None):
        return ImmigrationDeath(
            self.birth.expand(batch_shape), self.death.expand(batch_shape), self.times
        )

    def sample(self, sample_shape=()):
        return simulate_counts(self.birth, self.death, self.times)

    def log_prob(self, value):
        before = torch.nn.functional.pad(value[..., :-1], (1, 0))
        gap = torch.diff(self.times, prepend=torch.zeros_like(self.times[..., :1]))
        stay = torch.exp(-self.death[..., None] * gap)[..., None]
        arrive = (self.birth / self.death)[..., None, None] * (1 - stay)
        survivors = torch.arange(int(value.detach().max()) + 1, dtype=value.dtype)
        n, x = before[..., None], value[..., None]
        possible = (survivors <= n) & (survivors <= x)
        j = torch.minimum(torch.minimum(survivors, n), x)
        choose = torch.lgamma(n + 1) - torch.lgamma(j + 1) - torch.lgamma(n - j + 1)
        terms = choose + j * stay.log() + (n - j) * torch.log1p(-stay)
        terms = terms + (x - j) * arrive.log() - arrive - torch.lgamma(x - j + 1)
        return terms.masked_fill(~possible, -torch.inf).logsumexp(-1).sum(-1)


def stochastic_twin(cohort):
    stochastic_program(cohort, twin=True)


def design(times, num):
    shape = (num, len(times))
    return Cohort({"y": Series(times.expand(shape).clone(), torch.zeros(shape).double())})


def simulated(program, truth, times, num, seed):
    """One cohort of a program at its truth."""
    empty = design(times, num)
    population = {name: value.double() for name, value in truth.items()}
    return pa.simulate_population(pa.read_structure(program, empty), empty, population, seed)
