r"""Ten more models for `criticism_judge.py`, with variants that the fitted program does not know.

Repeated oral doses with a combined error, an intravenous bolus into two compartments, weights of
animals, a viral load with a limit of quantification, counts with a trend, yes/no values with a
slope, a Weibull hazard, a bounded score, a concentration beside a direct effect in a crossover
study, and the fluorescence of cells.
"""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch
from criticism_judge_models import Case, lot, normal, observe, spread

from pyro_amortized import nlme


def oral(cohort, variant=""):
    """Six doses, allometric scaling, a combined error."""
    typical, omega = normal("typical", [0.0, 1.0, 3.0], 1.0, 3), spread("omega", 2, 0.5)
    sigma = spread("sigma", 2, 0.5)
    size = cohort.covariates["weight"] / 70
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., 1:], omega).to_event(1))
        cl, v = phi.exp().unbind(-1)
        cl, v, ka = cl * size**0.75, v * size, typical[..., 0].exp() + 0 * cl
        t = cohort["y"].times
        y = nlme.one_compartment(t, cohort.doses, ka=ka, cl=cl, v=v)
        if variant == "saturated detector":
            y = y / (1 + y / 12.0)
        if variant == "autoinduction":
            later = nlme.one_compartment(t, cohort.doses, ka=ka, cl=2.0 * cl, v=v)
            y = torch.where(t > 48.0, later, y)
        if variant == "steep weight":
            y = nlme.one_compartment(t, cohort.doses, ka=ka, cl=cl / size**1.75, v=v)
        observe(cohort, nlme.combined_error(y, sigma[..., :1], sigma[..., 1:]))


def bolus(cohort, variant=""):
    """Two compartments after a bolus, with an effect of the sex on the volume."""
    typical, effect = normal("typical", [1.0, 2.0, 1.0, 3.0], 1.0, 4), normal("effect", 0.0, 0.5)
    omega, sigma = spread("omega", 2, 0.5), spread("sigma", 0, 0.5)
    with pyro.plate("individual", len(cohort)):
        move = effect * cohort.covariates["sex"]
        mean = torch.stack([typical[..., 0] + 0 * move, typical[..., 1] + move], -1)
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        cl, v = phi.exp().unbind(-1)
        q, v2 = (typical[..., k].exp() + 0 * cl for k in (2, 3))
        t = cohort["y"].times
        y = nlme.two_compartments(t, cohort.doses, cl=cl, v=v, q=q, v2=v2)
        if variant == "into a muscle":
            slow = nlme.two_compartments(t, cohort.doses, ka=0.7 + 0 * cl, cl=cl, v=v, q=q, v2=v2)
            y = torch.where((cohort.covariates["site"] == 1)[:, None], slow, y)
        if variant == "infused":
            slowly = replace(cohort.doses, durations=torch.full_like(cohort.doses.times, 1.5))
            slow = nlme.two_compartments(t, slowly, cl=cl, v=v, q=q, v2=v2)
            y = torch.where((cohort.covariates["site"] == 1)[:, None], slow, y)
        sd = sigma[..., None] * y
        if variant == "a bad run":
            row = torch.arange(len(cohort))
            sd = sd * (1 + 4 * ((row >= 20) & (row < 28)).double()[:, None])
        observe(cohort, dist.Normal(y, sd))


def animals(cohort, variant=""):
    """Logarithms of the weights of animals by Gompertz."""
    typical, effect = normal("typical", [4.0, 1.0, -1.5], 1.0, 3), normal("effect", 0.0, 0.5)
    omega, sigma = spread("omega", 3, 0.5), spread("sigma", 0, 0.5)
    with pyro.plate("individual", len(cohort)):
        move = effect[..., None] * cohort.covariates["sex"]
        mean = torch.stack(
            [typical[..., :1] + move, *(typical[..., k : k + 1] + 0 * move for k in (1, 2))], -1
        )
        phi = pyro.sample("phi", dist.Normal(mean, omega[..., None, :]).to_event(1))
        top, depth, rate = (x[..., None] for x in phi.unbind(-1))
        t = cohort["y"].times
        y = top - depth.exp() * torch.exp(-rate.exp() * t)
        if variant == "another balance":
            y = y + 0.1 * (t >= 10.0)
        if variant == "litters":
            g = torch.Generator().manual_seed(5)
            shared = torch.randn(len(cohort) // 6 + 1, generator=g).double().repeat_interleave(6)
            y = y + 0.25 * shared[: len(cohort), None]
        observe(cohort, dist.Normal(y, sigma[..., None]))


LIMIT = 1.7


def viral(cohort, variant=""):
    """Decimal logarithms of a viral load that falls in two phases, with a limit."""
    typical = normal("typical", [5.0, 0.0, -2.5, 1.0], 1.0, 4)
    omega, sigma = spread("omega", 2, 0.5), spread("sigma", 0, 0.5)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., :2], omega).to_event(1))
        start, rate = (x[..., None] for x in phi.unbind(-1))
        slow, part = typical[..., 2:3].exp()[..., None, :], typical[..., 3:4][..., None, :]
        t = cohort["y"].times
        share = torch.sigmoid(-part - 2.0)
        y = start + torch.log10(
            (1 - share) * torch.exp(-rate.exp() * t) + share * torch.exp(-slow * t)
        )
        if variant == "rebound":
            y = y + 0.15 * torch.relu(t - 10.0) * (lot(cohort) < 0.25)[:, None]
        limit = LIMIT
        if variant == "a worse assay at a site":
            limit = torch.where(cohort.covariates["site"] == 1, 3.7, LIMIT)[:, None].double()
        observe(cohort, nlme.Censored(dist.Normal(y, sigma[..., None]), low=limit))


def attacks(cohort, variant=""):
    """Counts with a trend."""
    typical, omega = normal("typical", [1.5, 0.0], 1.0, 2), spread("omega", 2, 0.5)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        level, slope = (x[..., None] for x in phi.unbind(-1))
        t = cohort["y"].times
        log_rate = level + slope * t / 8
        if variant == "none after surgery":
            cured = (lot(cohort) < 0.3)[:, None] & (t >= 4)
            log_rate = torch.where(cured, log_rate - 6.0, log_rate)
        observe(cohort, dist.Poisson(log_rate.exp()))


def answers(cohort, variant=""):
    """Yes/no values with a slope over the visits and an effect of the arm on it."""
    typical, effect = normal("typical", [0.0, 0.0], 1.5, 2), normal("effect", 0.0, 1.0)
    omega = spread("omega", 2, 1.0)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        level, slope = (x[..., None] for x in phi.unbind(-1))
        t = cohort["y"].times
        logits = level + (slope + (effect * cohort.covariates["arm"])[..., None]) * t / 6
        if variant == "a hump":
            logits = logits + 3.0 * torch.exp(-((t - 6) ** 2) / 4) - 1.0
        observe(cohort, dist.Bernoulli(logits=logits))


def survival(cohort, variant=""):
    """A Weibull hazard with an effect of the arm."""
    typical, effect = normal("typical", 2.0, 1.0), normal("effect", 0.0, 1.0)
    shape = pyro.sample("shape", dist.LogNormal(0.3, 0.4))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(typical, 0.1))
        event = cohort["event"]
        scale = torch.exp(b + effect * cohort.covariates["arm"])
        power = shape + 0 * scale
        if variant == "late effect":
            power = power * (1 + 4.0 * cohort.covariates["arm"])
            scale = 7.0 + 0 * scale
        hazard = nlme.weibull_hazard(scale, power)
        pyro.sample("event", nlme.EventTimes(hazard, event), obs=event.values)


def score(cohort, variant=""):
    """A score between 0 and 1 that improves."""
    typical, omega = normal("typical", [-0.5, 0.5, -1.0], 1.0, 3), spread("omega", 2, 0.5)
    size = pyro.sample("size", dist.LogNormal(3.0, 0.7))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., :2], omega).to_event(1))
        level, gain = (x[..., None] for x in phi.unbind(-1))
        t = cohort["y"].times
        rate = typical[..., 2].exp()[..., None, None]
        mean = torch.sigmoid(level + gain * (1 - torch.exp(-rate * t)))
        if variant == "a strict rater":
            at = (cohort.covariates["site"] == 2)[:, None]
            mean = torch.where(at, mean**2, mean)
        number = size[..., None, None]
        if variant == "relapse":
            mean = mean * torch.exp(-0.1 * torch.relu(t - 4))
        observe(cohort, dist.Beta(mean * number, (1 - mean) * number))


def periods(cohort, variant=""):
    """A crossover study of two periods of four samples, with a concentration and a direct effect;
    the sequence is the arm.
    """
    typical = normal("typical", [1.0, 3.0, 2.0, 0.0], 1.0, 4)
    benefit = normal("benefit", 0.0, 0.5)
    omega, sigma = spread("omega", 3, 0.5), spread("sigma", 2, 0.5)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical[..., :3], omega).to_event(1))
        cl, v, base = phi.exp().unbind(-1)
        t = cohort["y"].times
        second = (t >= 48.0).double()
        treated = torch.where((cohort.covariates["arm"] == 1)[:, None], second, 1 - second)
        factor = torch.exp(benefit[..., None, None] * treated)
        c = nlme.one_compartment(t, cohort.doses, cl=cl, v=v)
        y = factor * c
        half = typical[..., 3].exp()[..., None, None]
        if variant == "a period effect":
            y = y * (1 + 0.35 * second)
        seen = y
        if variant == "hysteresis":
            late = nlme.one_compartment(t - 1.5, cohort.doses, cl=cl, v=v)
            seen = factor * late
        z = base[..., None] * (1 + seen / (half + seen))
        sd = sigma[..., None, 1:]
        if variant == "correlated errors":
            place = cohort.covariates["weight"][:, None] * 997.0 * (1 + 0.7321 * torch.arange(8))
            shared = torch.special.ndtri((place % 1.0).clamp(1e-6, 1 - 1e-6))
            observe(cohort, dist.Normal(y * (1 + 0.15 * shared), 0.02 * y))
            observe(cohort, dist.Normal(z + 0.3 * shared, 0.04), "effect")
            return
        observe(cohort, dist.Normal(y, sigma[..., None, :1] * y))
        if variant == "proportional effect error":
            sd = 0.15 * (z / 8.0) ** 3
        observe(cohort, dist.Normal(z, sd), "effect")


def cells(cohort, variant=""):
    """Logarithms of the fluorescence of transfected cells, every 1.5 hours."""
    typical = normal("typical", [2.0, -2.0, -1.0], 1.0, 3)
    omega, sigma = spread("omega", 3, 0.5), spread("sigma", 0, 0.3)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        size, slow, fast = (x.exp()[..., None] for x in phi.unbind(-1))
        t = cohort["y"].times
        if variant == "transfected later":
            t = t - 1.2 * (torch.arange(len(cohort)) >= 24).double()[:, None]
        made = (torch.exp(-slow * t) - torch.exp(-fast * t)) / (fast - slow)
        y = torch.log1p(size * made.clamp(min=0.0))
        if variant == "bleached":
            y = y - 0.02 * torch.relu(t - 15.0)
        if variant == "background of a plate":
            plate = ((torch.arange(len(cohort)) // 12) == 1).double()[:, None]
            y = torch.log(y.exp() + 6.0 * plate)
        if variant == "lamp":
            g = torch.Generator().manual_seed(3)
            y = y + 0.08 * torch.randn(t.shape[-1], generator=g).double()
        observe(cohort, dist.Normal(y, sigma[..., None]))


VISITS = tuple(float(k) for k in range(10))
MODELS = {
    "oral": Case(
        oral,
        (1.0, 3.0, 6.0, 11.0, 35.0, 61.0, 63.0, 66.0, 72.0, 84.0),
        {"typical": [0.0, 1.0, 3.0], "omega": [0.25, 0.2], "sigma": [0.15, 0.1]},
        doses=((0.0, 12.0, 24.0, 36.0, 48.0, 60.0), 100.0, 0.0),
        jitter=0.01,
    ),
    "bolus": Case(
        bolus,
        (0.25, 0.75, 1.5, 4.0, 8.0, 16.0, 30.0),
        {"typical": [1.0, 2.0, 1.0, 3.0], "effect": 0.2, "omega": [0.25, 0.25], "sigma": 0.12},
        doses=((0.0,), 100.0, 0.0),
        jitter=0.02,
    ),
    "animals": Case(
        animals,
        (0.0, 2.0, 4.0, 7.0, 10.0, 14.0, 18.0, 24.0),
        {"typical": [4.0, 1.0, -1.5], "effect": -0.2, "omega": [0.15, 0.15, 0.15], "sigma": 0.06},
    ),
    "viral": Case(
        viral,
        (0.0, 1.0, 2.0, 4.0, 7.0, 10.0, 14.0, 21.0),
        {"typical": [5.0, 0.0, -2.5, 1.0], "omega": [0.5, 0.3], "sigma": 0.25},
    ),
    "attacks": Case(attacks, VISITS, {"typical": [1.5, -0.3], "omega": [0.5, 0.4]}),
    "answers": Case(
        answers,
        tuple(float(k) for k in range(12)),
        {"typical": [0.5, -0.3], "effect": 1.2, "omega": [1.0, 0.5]},
    ),
    "survival": Case(
        survival,
        (0.0,),
        {"typical": 2.0, "effect": 0.4, "shape": 1.4},
        series=(),
        event=10.0,
    ),
    "score": Case(
        score,
        (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
        {"typical": [-0.5, 1.2, -1.0], "omega": [0.5, 0.4], "size": 40.0},
    ),
    "periods": Case(
        periods,
        (1.0, 3.0, 8.0, 16.0, 49.0, 51.0, 56.0, 64.0),
        {
            "typical": [1.0, 3.0, 2.0, 0.0],
            "benefit": 0.3,
            "omega": [0.25, 0.2, 0.2],
            "sigma": [0.15, 0.3],
        },
        series=("y", "effect"),
        doses=((0.0, 48.0), 100.0, 0.0),
    ),
    "cells": Case(
        cells,
        tuple(1.5 * k for k in range(1, 21)),
        {"typical": [2.0, -2.5, -1.0], "omega": [0.3, 0.25, 0.25], "sigma": 0.06},
    ),
}
