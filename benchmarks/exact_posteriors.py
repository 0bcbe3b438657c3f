"""Exact posteriors of the missing-data experiments: grids, a conjugate form, long importance sampling.

Every function returns, for the data sets of a cohort: ``log_true``, the log density of the true
parameters in unconstrained coordinates; ``log_marginal`` with its error; mean and sd of the parameters
in the units of the prior.
"""

import math

import torch

import pyro_amortized as pa


def physical(structure, cohort, draws):
    """Draws in the units of the prior, shape (draw, individual, parameter)."""
    values = structure.constrained_draws(cohort, draws, {})
    return torch.cat([v.reshape(*draws.shape[:2], -1) for v in values.values()], -1)


def joint(structure, cohort, points):
    density = structure.log_density(cohort, points, {})
    return density.observation + density.individual


def moments(values, weights):
    """Mean and sd over the first dimension."""
    weights = weights.unsqueeze(-1)
    mean = (weights * values).sum(0)
    return mean, (weights * (values - mean) ** 2).sum(0).sqrt()


def result(log_true, log_marginal, mean, sd, note, error=None):
    error = torch.zeros_like(log_marginal) if error is None else error
    return dict(
        log_true=log_true,
        log_marginal=log_marginal,
        log_marginal_error=error,
        mean=mean,
        sd=sd,
        note=note,
    )


def closing_grids(structure, cohort, size, block):
    """Blocks of (rows, points, log joint, log cell): a grid that closes in on each posterior."""
    many = structure.draw_individuals(
        cohort[:50], {}, 100, torch.Generator().manual_seed(0)
    ).flatten(0, 1)
    loc, scale = many.mean(0), many.std(0)
    unit = torch.linspace(0, 1, size, dtype=torch.float64)
    for rows in torch.arange(len(cohort)).split(block):
        part = cohort[rows]
        low, high = (loc - 6 * scale).expand(len(rows), -1), (loc + 6 * scale).expand(len(rows), -1)
        for last in (False, False, True):
            first = (low[:, :1] + (high - low)[:, :1] * unit).T
            second = (low[:, 1:] + (high - low)[:, 1:] * unit).T
            points = torch.stack([first.repeat_interleave(size, 0), second.repeat(size, 1)], -1)
            values = joint(structure, part, points)
            step = (high - low) / (size - 1)
            if not last:
                kept = (values > values.amax(0) - 20).unsqueeze(-1)
                low = torch.maximum(low, torch.where(kept, points, torch.inf).amin(0) - 2 * step)
                high = torch.minimum(high, torch.where(kept, points, -torch.inf).amax(0) + 2 * step)
        yield rows, points, values, step.log().sum(-1)


def grid(experiment, structure, cohort, truth, size=121, block=40):
    log_marginal, means, sds = [], [], []
    for rows, points, values, log_cell in closing_grids(structure, cohort, size, block):
        log_marginal.append(values.logsumexp(0) + log_cell)
        mean, sd = moments(physical(structure, cohort[rows], points), values.softmax(0))
        means.append(mean)
        sds.append(sd)
    log_marginal = torch.cat(log_marginal)
    log_true = joint(structure, cohort, truth.unsqueeze(0))[0] - log_marginal
    return result(
        log_true, log_marginal, torch.cat(means), torch.cat(sds), f"closing grid of {size} x {size}"
    )


def grid_draws(structure, cohort, num, generator, size=121, block=40):
    """Draws from the exact posterior, shape (draw, individual, 2)."""
    parts = []
    for _, points, values, _ in closing_grids(structure, cohort, size, block):
        picked = torch.multinomial(
            values.softmax(0).T, num, replacement=True, generator=generator
        ).T
        parts.append(points.gather(0, picked.unsqueeze(-1).expand(-1, -1, 2)))
    return torch.cat(parts, 1)


def number(experiment, structure, cohort, truth, size=4001):
    """k1 on a line; p is uniform on the interval that gives the number of missing values."""
    line = torch.linspace(-0.75 - 1.75, -0.75 + 1.75, size, dtype=torch.float64)
    parts = []
    for rows in torch.arange(len(cohort)).split(100):
        points = truth[rows].expand(size, -1, -1).clone()
        points[..., 0] = line.unsqueeze(1)
        values = joint(structure, cohort[rows], points)
        log_k = values.logsumexp(0) + (line[1] - line[0]).log()
        mean, sd = moments(points[..., :1], values.softmax(0))
        parts.append((log_k, mean, sd))
    log_k, mean, sd = (torch.cat(x) for x in zip(*parts, strict=True))
    missing = (cohort["y_recorded"].values < 0.5).sum(1).double()
    low, high = missing / 11, ((missing + 1) / 11).clamp(max=0.8)
    _, log_jacobian = structure.constrain(cohort, truth, {})
    log_true = (
        joint(structure, cohort, truth.unsqueeze(0))[0] - log_k - (high - low).log() + log_jacobian
    )
    log_marginal = log_k - log_jacobian + (high - low).log()
    mean = torch.cat([mean, ((low + high) / 2).unsqueeze(-1)], -1)
    sd = torch.cat([sd, ((high - low) / 12**0.5).unsqueeze(-1)], -1)
    return result(log_true, log_marginal, mean, sd, "line for k1, p uniform")


def sinusoid(experiment, structure, cohort, truth, size=24_001):
    """B is Gaussian given a: integrated out; a on a line."""
    line = torch.linspace(0.1, 1.0, size, dtype=torch.float64)
    variance, prior = 0.05**2, 0.25**2
    parts = []
    for rows in torch.arange(len(cohort)).split(10):
        y = cohort["y"]
        times, values, seen = y.times[rows], y.values[rows], y.observed[rows].double()
        residual = (values - torch.sin(2 * math.pi * line[:, None, None] * times)) * seen
        n, total, square = seen.sum(1), residual.sum(-1), residual.pow(2).sum(-1)
        precision = n / variance + 1 / prior
        b = total / variance / precision
        log_like = (
            -0.5 * square / variance
            + 0.5 * precision * b**2
            - 0.5 * n * math.log(2 * math.pi * variance)
        )
        log_like = log_like - 0.5 * (precision * prior).log()
        log_marginal = log_like.logsumexp(0) - math.log(size - 1)
        weights = log_like.softmax(0)
        mean_a, sd_a = moments(line[:, None, None].expand(-1, len(rows), -1), weights)
        mean_b = (weights * b).sum(0)
        sd_b = (1 / precision + (weights * (b - mean_b) ** 2).sum(0)).sqrt()
        parts.append((log_marginal, mean_a[:, 0], mean_b, sd_a[:, 0], sd_b))
    log_marginal, mean_a, mean_b, sd_a, sd_b = (torch.cat(x) for x in zip(*parts, strict=True))
    log_true = joint(structure, cohort, truth.unsqueeze(0))[0] - log_marginal
    mean, sd = torch.stack([mean_a, mean_b], -1), torch.stack([sd_a, sd_b], -1)
    return result(log_true, log_marginal, mean, sd, "line for a, b conjugate")


def sir(experiment, structure, cohort, truth, size=601):
    """One grid for all data sets: the solutions are the same."""
    from sir import NOISE, epidemic

    loc, scale = torch.tensor([-1.0, -1.5], dtype=torch.float64), 0.25
    unit = torch.linspace(-5.5, 5.5, size, dtype=torch.float64)
    points = torch.cartesian_prod(loc[0] + scale * unit, loc[1] + scale * unit)
    solutions = torch.cat([epidemic(*(10**p).unbind(-1)).flatten(1) for p in points.split(20_000)])
    log_prior = -0.5 * ((points - loc) / scale).pow(2).sum(-1) - math.log(2 * math.pi * scale**2)
    log_cell = 2 * math.log(float(unit[1] - unit[0]) * scale)
    y = cohort["y"]
    seen, values = y.observed.double().flatten(1), y.values.flatten(1)
    parts = []
    for rows in torch.arange(len(cohort)).split(50):
        m, v = seen[rows], values[rows]
        square = (m * v * v).sum(1) - 2 * solutions @ (m * v).T + solutions**2 @ m.T
        log_like = -0.5 * square / NOISE**2 - m.sum(1) * math.log(NOISE * math.sqrt(2 * math.pi))
        total = log_like + log_prior.unsqueeze(1)
        weights = total.softmax(0)
        mean = weights.T @ points
        sd = (weights.T @ points**2 - mean**2).clamp(min=0).sqrt()
        parts.append((total.logsumexp(0) + log_cell, mean, sd))
    log_marginal, mean, sd = (torch.cat(x) for x in zip(*parts, strict=True))
    log_true = joint(structure, cohort, truth.unsqueeze(0))[0] - log_marginal
    return result(log_true, log_marginal, mean, sd, f"one grid of {size} x {size}")


def sampled(experiment, structure, cohort, truth):
    """Many corrected draws of a guide of its own."""
    options = pa.TrainingOptions(num_workers=0, num_noise=4)
    quick = len(cohort) < 100
    guide = pa.train(
        experiment.model,
        experiment.design,
        num_simulations=5_000 if quick else 150_000,
        budget="10s" if quick else "3min",
        seed=99,
        options=options,
        progress=False,
    )
    num = 1000 if quick else 4000
    log_marginal, errors, means, sds, least = [], [], [], [], math.inf
    with torch.no_grad():
        for rows in torch.arange(len(cohort)).split(100):
            part = cohort[rows]
            individuals = pa.sample_individuals(
                guide.model, part, {}, guide=guide, num_draws=num, seed=5
            )
            mean, sd = moments(
                physical(structure, part, individuals.unconstrained), individuals.weights
            )
            log_marginal.append(individuals.estimate.log_mean)
            errors.append(individuals.estimate.mc_error)
            means.append(mean)
            sds.append(sd)
            least = min(least, float(individuals.estimate.ess.min()))
    log_marginal, errors = torch.cat(log_marginal), torch.cat(errors)
    log_true = joint(structure, cohort, truth.unsqueeze(0))[0] - log_marginal
    note = f"{num} weighted draws each, smallest ESS {least:.0f}, largest error of the log marginal {float(errors.max()):.3f}"
    return result(log_true, log_marginal, torch.cat(means), torch.cat(sds), note, errors)


REFERENCES = {
    "grid": grid,
    "coarse grid": lambda *a: grid(*a, size=81, block=10),
    "number": number,
    "sinusoid": sinusoid,
    "sir": sir,
    "sampled": sampled,
}
