"""A line whose height depends on the weight in a way that the program takes as known: its marginal
likelihood is closed-form, whatever the weights.
"""

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa

NUM, WIDTH = 40, 5
TRUTH = {
    "mean": torch.tensor([10.0, 1.0]).double(),
    "omega": torch.tensor([0.8, 0.3]).double(),
    "sigma": torch.tensor(0.3).double(),
}
SLOPE = 6.0


def program(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.tensor([9.0, 1.0]), 5.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2) * 2).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    moved = SLOPE * (cohort.covariates["weight"] / 70).log().double()
    center = mean.unsqueeze(-2) + torch.stack([moved, 0 * moved], -1)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(center, omega.unsqueeze(-2)).to_event(1))
        height, slope = phi.unbind(-1)
        y = cohort["y"]
        line = height[..., None] + slope[..., None] * y.times
        distribution = dist.Normal(line, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


def right_cohort(seed, num=NUM):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).double()

    covariates = {
        "weight": 70 * torch.exp(0.25 * normal(num)),
        "age": 20 + 40 * torch.rand(num, generator=generator).double(),
        "site": torch.randint(3, (num,), generator=generator).double(),
    }
    times = torch.arange(WIDTH).double().expand(num, -1)
    phi = TRUTH["mean"] + TRUTH["omega"] * normal(num, 2)
    phi[:, 0] += SLOPE * (covariates["weight"] / 70).log()
    values = phi[:, :1] + phi[:, 1:] * times + TRUTH["sigma"] * normal(num, WIDTH)
    return pa.Cohort({"y": pa.Series(times, values)}, covariates=covariates)


def with_covariates(cohort, **changed):
    return pa.Cohort(dict(cohort.series), covariates={**cohort.covariates, **changed})


def exact_log_likelihood(cohort, population):
    """The log marginal likelihood of every individual."""
    y, omega = cohort["y"], population["omega"].double()
    x = torch.stack([torch.ones_like(y.times), y.times], -1).double()
    moved = SLOPE * (cohort.covariates["weight"].double() / 70).log()
    center = population["mean"].double() + torch.stack([moved, 0 * moved], -1)
    noise = population["sigma"].double() ** 2 * torch.eye(y.times.shape[1]).double()
    covariance = x @ (omega**2).diag() @ x.transpose(1, 2) + noise
    mean = (x @ center.unsqueeze(-1))[..., 0]
    return dist.MultivariateNormal(mean, covariance).log_prob(y.values.double())


def exact_maximum(cohort, start):
    """The maximum of the log likelihood over the population."""
    vector = torch.cat([start["mean"], start["omega"].log(), start["sigma"].log().reshape(1)])
    vector = vector.double().clone().requires_grad_()

    def negative():
        population = {"mean": vector[:2], "omega": vector[2:4].exp(), "sigma": vector[4].exp()}
        return -exact_log_likelihood(cohort, population).sum()

    search = torch.optim.LBFGS([vector], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = negative()
        loss.backward()
        return loss

    search.step(closure)
    return -float(negative().detach())
