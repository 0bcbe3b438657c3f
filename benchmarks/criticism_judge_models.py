r"""Ten models for `criticism_judge.py`: each a program with variants, a design, and the truth.

A program gets the cohort and the name of a variant; without one it is what is fitted. Variants are
what the fitted program does not know.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme


@dataclass(frozen=True)
class Case:
    """A model: its program, times, truth, and what the design has in addition.

    Args:
        program: The program, of a cohort and a variant.
        times: Planned times.
        truth: Population parameters.
        series: Names of the series of values.
        doses: Times, amount and duration of the doses.
        event: End of the follow-up of an event.
        jitter: Standard deviation of the real times about the planned ones, relative to them.
    """

    program: Callable
    times: tuple[float, ...]
    truth: dict
    series: tuple[str, ...] = ("y",)
    doses: tuple[tuple[float, ...], float, float] | None = None
    event: float = 0.0
    jitter: float = 0.0


def design_of(case: Case, num: int, seed: int, *, share: float, more: int) -> pa.Cohort:
    """Times, doses and covariates; of each individual a share of the values is recorded."""
    g = torch.Generator().manual_seed(seed)
    planned = torch.tensor(case.times).double()
    times = planned.expand(num, -1) * (
        1 + case.jitter * torch.randn(num, len(planned), generator=g).double()
    )
    times = times.sort(1).values
    observed = torch.rand(times.shape, generator=g) < share
    observed[:, 0] |= ~observed.any(1)
    series = {n: pa.Series(times, torch.ones_like(times), observed) for n in case.series}
    if case.event:
        end = torch.full((num,), case.event).double()
        series["event"] = nlme.event_series(end, torch.zeros(num), end=end)
    covariates = {
        "sex": (torch.rand(num, generator=g) < 0.5).double(),
        "arm": (torch.arange(num) % 2).double(),
        "site": torch.randint(4, (num,), generator=g).double(),
        "weight": 70 * torch.exp(0.2 * torch.randn(num, generator=g)).double(),
    }
    for k in range(more):
        x = torch.randn(num, generator=g).double()
        covariates[f"x{k}"] = x if k % 2 else x.exp()
    doses = None
    if case.doses is not None:
        at, amount, duration = case.doses
        at = torch.tensor(at).double().expand(num, -1)
        amounts = amount * 2.0 ** torch.randint(2, (num, 1), generator=g).double()
        doses = pa.Doses(at, amounts.expand_as(at).clone(), durations=torch.full_like(at, duration))
    return pa.Cohort(series, doses, covariates)


def observe(cohort, distribution, name="y"):
    y = cohort[name]
    pyro.sample(name, distribution.mask(y.observed).to_event(1), obs=y.values)


def lot(cohort):
    """A number between 0 and 1 of each individual that nothing in the model depends on."""
    return (cohort.covariates["weight"] * 997.0) % 1.0


def normal(name, mean, sd, size=0):
    """A site of the population."""
    law = dist.Normal(torch.as_tensor(mean), sd)
    return pyro.sample(name, law.to_event(1) if size else law)


def spread(name, size=0, scale=1.0):
    if not size:
        return pyro.sample(name, dist.HalfNormal(scale))
    return pyro.sample(name, dist.HalfNormal(torch.full((size,), scale)).to_event(1))


def ordered(cohort, variant=""):
    """Four categories of pain, with an effect of the arm."""
    typical, effect = normal("typical", 0.0, 2.0), normal("effect", 0.0, 1.5)
    omega, step = (
        spread("omega"),
        pyro.sample("step", dist.LogNormal(0.2 * torch.ones(2), 0.5).to_event(1)),
    )
    arm = cohort.covariates["arm"]
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, omega))
        t = cohort["y"].times
        acts = torch.exp(-0.6 * t) if variant == "wears off" else torch.ones_like(t)
        predictor = b[..., None] + effect[..., None] * arm[..., None] * acts
        zero = torch.zeros_like(step[..., :1])
        cuts = torch.cat([zero, step[..., :1], step.sum(-1, keepdim=True)], -1)
        observe(cohort, dist.OrderedLogistic(predictor, cuts[..., None, :]))


def markov(cohort, variant=""):
    """A chain of two states."""
    typical, stay, omega = normal("typical", 0.0, 2.0), normal("stay", 0.0, 2.0), spread("omega")
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, omega))
        y = cohort["y"]
        sex = 2.5 * cohort.covariates["sex"] if variant == "sex" else 0.0
        level = b + sex
        drift = 0.3 * (y.times[:, 1:] - 5.0) if variant == "drift" else 0.0

        def both(logits):
            p = torch.sigmoid(logits)
            return torch.stack([1 - p, p], -1)

        later = level[..., None].expand(*level.shape, y.times.shape[1] - 1) + drift
        transitions = torch.stack([both(later), both(later + stay[..., None])], -2)
        chain = nlme.MarkovCategories(both(level), transitions, y.observed)
        pyro.sample("y", chain, obs=y.values)


def joint(cohort, variant=""):
    """A marker that falls, and an event that it causes."""
    typical, omega = normal("typical", [5.0, 0.0], 2.0, 2), spread("omega", 2)
    sigma, log_base, link = spread("sigma"), normal("log_base", 0.0, 2.0), normal("link", 0.0, 1.0)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        level, slope = phi.unbind(-1)
        observe(
            cohort,
            dist.Normal(level[..., None] + slope[..., None] * cohort["y"].times, sigma[..., None]),
        )
        event = cohort["event"]
        rate, bend = log_base + link * level, link * slope
        if variant == "by sex":
            rate, bend = rate + 2.5 * (cohort.covariates["sex"] - 0.5), bend
        hazard = nlme.gompertz_hazard(torch.exp(rate), bend)
        pyro.sample("event", nlme.EventTimes(hazard, event), obs=event.values)


def counts(cohort, variant=""):
    """Seizures of a month, with more variance than Poisson's."""
    typical, effect = normal("typical", 1.0, 2.0), normal("effect", 0.0, 1.0)
    omega, size = spread("omega"), pyro.sample("size", dist.LogNormal(1.0, 0.7))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, omega))
        t = cohort["y"].times
        log_mean = (b + effect * cohort.covariates["arm"])[..., None].expand(*b.shape, t.shape[-1])
        if variant == "season":
            log_mean = log_mean + 0.7 * torch.sin(torch.pi * t / 4)
        r = size[..., None]
        observe(cohort, dist.NegativeBinomial(r.expand(log_mean.shape), logits=log_mean - r.log()))


def emax(cohort, variant=""):
    """Five doses of each individual in turn; the times of the series are the doses."""
    typical = normal("typical", [2.0, 3.0, 1.5], 1.0, 3)
    omega, sigma = spread("omega", 3, 0.5), spread("sigma")
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        base, top, half = (x[..., None] for x in phi.exp().unbind(-1))
        d = cohort["y"].times
        y = base + top * d / (half + d)
        rank = torch.arange(d.shape[-1]).double()
        if variant == "without response":
            y = torch.where((lot(cohort) < 0.4)[:, None], base, y)
        if variant == "carried over":
            y = y + 0.6 * (y - base).roll(1, -1) * (rank > 0)
        if variant == "hook":
            y = y - 0.35 * top * torch.relu(d - 10) / 20
        observe(cohort, dist.Normal(y, sigma[..., None]))


def heights(cohort, variant=""):
    """Heights of children over their age, with an effect of the sex."""
    typical, effect = normal("typical", [80.0, 6.0], 10.0, 2), normal("effect", 0.0, 5.0)
    omega, sigma = spread("omega", 2, 5.0), spread("sigma", 0, 3.0)
    with pyro.plate("individual", len(cohort)):
        move = effect[..., None] * cohort.covariates["sex"]
        mean = torch.stack([typical[..., 0:1] + move, typical[..., 1:2] + 0 * move], -1)
        phi = pyro.sample("phi", dist.Normal(mean, omega[..., None, :]).to_event(1))
        t = cohort["y"].times
        observe(cohort, dist.Normal(phi[..., :1] + phi[..., 1:] * t, sigma[..., None]))


def logistic(cohort, variant=""):
    """Logarithms of the volumes of tumours, with a limit."""
    typical = normal("typical", [0.0, -1.0, 4.0], 1.0, 3)
    omega, sigma = spread("omega", 3, 0.5), spread("sigma", 0, 0.5)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        start, log_rate, limit = (x[..., None] for x in phi.unbind(-1))
        t = cohort["y"].times
        grown = start + log_rate.exp() * t
        y = grown - torch.nn.functional.softplus(grown - limit)
        if variant == "no limit":
            y = grown
        if variant == "observers":
            y = y + 0.35 * (torch.arange(t.shape[-1]) % 2).double()
        if variant == "regress":
            some = (lot(cohort) < 0.2).double()[:, None]
            y = y - some * 0.25 * torch.relu(t - 10.0)
        observe(cohort, dist.Normal(y, sigma[..., None]))


def infusion(cohort, variant=""):
    """Two compartments, two infusions, and samples after both."""
    typical = normal("typical", [1.0, 2.5, 0.7, 3.0], 1.0, 4)
    omega, sigma = spread("omega", 2, 0.5), spread("sigma", 0, 0.5)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., :2], omega).to_event(1))
        cl, v = phi.exp().unbind(-1)
        q, v2 = (typical[..., k].exp() + 0 * cl for k in (2, 3))
        t = cohort["y"].times
        y = nlme.two_compartments(t, cohort.doses, cl=cl, v=v, q=q, v2=v2)
        if variant == "occasions":
            second = cl * torch.exp(0.5 * torch.special.ndtri(lot(cohort)))
            later = nlme.two_compartments(t, cohort.doses, cl=second, v=v, q=q, v2=v2)
            y = torch.where(t > 47.0, later, y)
        if variant == "contaminated":
            hit = ((lot(cohort) < 0.2)[:, None] & (torch.arange(t.shape[-1]) == 0)).double()
            y = y * (1 + 4 * hit)
        observe(cohort, dist.Normal(y, sigma[..., None] * y))


def effect(cohort, variant=""):
    """A concentration and a direct effect of it."""
    typical = normal("typical", [0.5, 1.0, 3.5, 3.0, 0.5], 1.0, 5)
    omega, sigma = spread("omega", 3, 0.5), spread("sigma", 2, 0.5)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., [1, 2, 3]], omega).to_event(1))
        cl, v, base = phi.exp().unbind(-1)
        ka = typical[..., 0].exp() + 0 * cl
        y = nlme.one_compartment(cohort["y"].times, cohort.doses, ka=ka, cl=cl, v=v)
        observe(cohort, dist.Normal(y, sigma[..., :1] * y))
        at = cohort["effect"].times
        c = nlme.one_compartment(at, cohort.doses, ka=ka, cl=cl, v=v)
        half = typical[..., 4:].exp()
        acts = c / (half + c)
        if variant == "tolerance":
            acts = acts * torch.exp(-0.15 * at)
        z = base[..., None] * (1 - 0.8 * acts)
        observe(cohort, dist.Normal(z, sigma[..., 1:] * z), "effect")


def response(t, x, p):
    """A response whose production a drug inhibits."""
    amount = p["amount"] * torch.exp(-0.15 * (t - p["start"]).clamp(min=0.0)) * (t >= p["start"])
    made = p["rate"] * p["base"] * (1 - amount / (p["half"] + amount)) * (1 + p["drift"] * t)
    return made[:, None] - p["rate"][:, None] * x


def turnover(cohort, variant=""):
    """An indirect response, solved numerically."""
    typical, omega, sigma = (
        normal("typical", [3.0, -1.5, 1.0], 1.0, 3),
        spread("omega", 2, 0.5),
        spread("sigma", 0, 0.5),
    )
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., :2], omega).to_event(1))
        base, rate = phi.exp().unbind(-1)
        p = {
            "base": base,
            "rate": rate,
            "half": typical[..., 2].exp() + 0 * base,
            "amount": cohort.doses.amounts[:, 0].to(base) + 0 * base,
            "start": cohort.doses.times[:, 0].to(base) + 0 * base,
            "drift": (0.03 if variant == "drift" else 0.0) + 0 * base,
        }
        y = nlme.solve(response, base.unsqueeze(-1), cohort["y"].times, p)[..., 0]
        observe(cohort, dist.Normal(y, sigma[..., None] * y))


VISITS = tuple(float(k) for k in range(8))
MODELS = {
    "ordered": Case(
        ordered, VISITS, {"typical": -0.5, "effect": 2.0, "omega": 1.0, "step": [1.2, 1.2]}
    ),
    "markov": Case(markov, tuple(range(12)), {"typical": -1.0, "stay": 1.5, "omega": 0.8}),
    "joint": Case(
        joint,
        tuple(0.5 * k for k in range(7)),
        {"typical": [5.0, -0.3], "omega": [0.8, 0.25], "sigma": 0.4, "log_base": 2.0, "link": -0.7},
        event=4.0,
    ),
    "counts": Case(counts, VISITS, {"typical": 1.2, "effect": -0.5, "omega": 0.7, "size": 6.0}),
    "emax": Case(
        emax,
        (0.0, 2.0, 5.0, 10.0, 30.0),
        {"typical": [2.0, 3.0, 1.5], "omega": [0.25, 0.3, 0.3], "sigma": 0.8},
    ),
    "heights": Case(
        heights,
        (1.0, 2.0, 3.0, 4.0, 6.0),
        {"typical": [80.0, 6.0], "effect": 6.0, "omega": [3.0, 0.6], "sigma": 1.0},
        jitter=0.05,
    ),
    "logistic": Case(
        logistic,
        (0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 20.0),
        {"typical": [0.0, -1.0, 4.0], "omega": [0.4, 0.25, 0.3], "sigma": 0.15},
        jitter=0.05,
    ),
    "infusion": Case(
        infusion,
        (0.5, 2.0, 6.0, 12.0, 24.0, 49.0, 54.0, 72.0),
        {"typical": [1.0, 2.5, 0.7, 3.0], "omega": [0.3, 0.25], "sigma": 0.12},
        doses=((0.0, 48.0), 100.0, 1.0),
        jitter=0.02,
    ),
    "effect": Case(
        effect,
        (0.5, 1.0, 3.0, 6.0, 12.0, 24.0),
        {
            "typical": [0.5, 1.0, 3.5, 3.0, 0.5],
            "omega": [0.3, 0.25, 0.2],
            "sigma": [0.12, 0.08],
        },
        series=("y", "effect"),
        doses=((0.0,), 100.0, 0.0),
    ),
    "turnover": Case(
        turnover,
        (0.0, 2.0, 5.0, 10.0, 18.0, 30.0, 48.0),
        {"typical": [3.0, -1.5, 1.0], "omega": [0.25, 0.3], "sigma": 0.08},
        doses=((6.0,), 10.0, 0.0),
        jitter=0.03,
    ),
}
