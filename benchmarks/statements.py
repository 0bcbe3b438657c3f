r"""Whether what a fit says about its own accuracy is right.

The same data are fitted with different seeds, and the results are compared with exact ones:

- ``line``: :math:`y_{ij} = a_i + b_i t_j + \epsilon_{ij}`, in closed form;
- ``binary``: a logistic curve with a random intercept, by Gauss-Hermite quadrature.

With the Monte Carlo errors that a fit prints, the differences of -2LL (at the estimates of the
fit), of the estimates and of the standard errors (from the exact maximum) are z values with a
standard deviation of one.

- ``posterior``: 90 % intervals of `AmortizedMCMC` for population and individuals of the straight
  line, and the exact posterior mass that they hold. Given the standard deviations the posterior is
  normal in closed form; over these it is summed on a grid.

``--only`` runs one part. The last line is JSON with ``claims``: name -> value, bound, holds.

python benchmarks/statements.py [--seeds 30] [--only line] [--small]
"""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.interpolate import CubicSpline

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import pyro_amortized as pa

Z_RANGE = (0.8, 1.2)  # of standard deviations of z values
MASS_RANGE = (0.88, 0.92)  # of the mass of 90 % intervals
PRIOR_MEAN, PRIOR_SD = torch.tensor([1.0, 0.5]).double(), 1.0


def line_program(cohort):
    mean = pyro.sample("mean", dist.Normal(PRIOR_MEAN.float(), PRIOR_SD).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        y = cohort["y"]
        prediction = phi[..., :1] + phi[..., 1:] * y.times
        error = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", error, obs=y.values)


def line_cohort(num, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    times = torch.linspace(0, 3, 6).double().expand(num, -1)
    phi = torch.tensor([1.0, 0.5]) + torch.tensor([0.6, 0.3]) * normal(num, 2)
    return pa.Cohort(
        {"y": pa.Series(times, phi[:, :1] + phi[:, 1:] * times + 0.4 * normal(num, 6))}
    )


def line_likelihood(cohort, population):
    """Exact log marginal likelihood of all individuals."""
    y = cohort["y"]
    design = torch.stack([torch.ones_like(y.times[0]), y.times[0]], -1).double()
    covariance = (design * population["omega"] ** 2) @ design.T
    covariance = covariance + population["sigma"] ** 2 * torch.eye(len(design)).double()
    law = torch.distributions.MultivariateNormal(design @ population["mean"], covariance)
    return law.log_prob(y.values.double()).sum()


def binary_program(cohort):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(2.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    with pyro.plate("individual", len(cohort)):
        a = pyro.sample("a", dist.Normal(mean, omega))
        y = cohort["y"]
        logits = a[..., None] + slope[..., None] * y.times
        law = dist.Bernoulli(logits=logits).mask(y.observed).to_event(1)
        pyro.sample("y", law, obs=y.values)


def binary_cohort(num, seed):
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(-1, 1, 8).double().expand(num, -1)
    a = 0.3 + 1.2 * torch.randn(num, 1, generator=generator).double()
    uniform = torch.rand(num, 8, generator=generator).double()
    return pa.Cohort({"y": pa.Series(times, (uniform < torch.sigmoid(a + times)).double())})


def binary_likelihood(cohort, population):
    """Log marginal likelihood by 80 quadrature points."""
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.hermite_e.hermegauss(80))
    a = population["mean"] + population["omega"] * nodes
    y = cohort["y"]
    logits = a[:, None, None] + population["slope"] * y.times
    law = torch.distributions.Bernoulli(logits=logits)
    given = law.log_prob(y.values.double()).sum(-1)
    log_weights = (weights / math.sqrt(2 * math.pi)).log()[:, None]
    return torch.logsumexp(given + log_weights, 0).sum()


MODELS = {
    "line": (line_program, line_cohort, line_likelihood),
    "binary": (binary_program, binary_cohort, binary_likelihood),
}


def exact_maximum(objective, start):
    """Maximum by Newton's method, and the standard errors by its curvature."""
    vector = start.clone()
    for _ in range(20):
        gradient = torch.autograd.functional.jacobian(objective, vector)
        hessian = torch.autograd.functional.hessian(objective, vector)
        vector = vector - torch.linalg.solve(hessian, gradient)
    return vector, torch.linalg.inv(-hessian).diagonal().sqrt()


def z_values(name, num, seeds):
    """The z values of -2LL, estimates and standard errors, of one data set and many seeds."""
    program, cohort_of, likelihood = MODELS[name]
    cohort = cohort_of(num, 1)
    found, errors = {"-2LL": [], "estimates": [], "standard errors": []}, []
    for seed in range(seeds):
        fit = pa.fit_population(program, cohort, seed=seed)
        constrain = fit.structure.constrain_population

        def objective(vector, constrain=constrain):
            return likelihood(cohort, constrain(vector))

        exact = -2 * float(objective(fit.vector))
        maximum, standard_errors = exact_maximum(objective, fit.vector)
        own = fit.covariance.diagonal().sqrt()
        found["-2LL"].append([(fit.minus2ll - exact) / fit.marginal.minus2ll_mc_error])
        found["estimates"].append(((fit.vector - maximum) / fit.monte_carlo_errors).tolist())
        relative = (own / standard_errors - 1) / fit.standard_error_errors
        found["standard errors"].append(relative.tolist())
        largest = float((fit.monte_carlo_errors / own).max())
        errors.append(
            (fit.marginal.minus2ll_mc_error, largest, float(fit.standard_error_errors.max()))
        )
    return {k: np.array(v) for k, v in found.items()}, np.median(errors, 0)


def of_fits(name, num, seeds):
    """Claims about the z values of one model."""
    found, errors = z_values(name, num, seeds)
    claims = {}
    for (what, z), error in zip(found.items(), errors, strict=True):
        size = float(np.sqrt(np.square(z).mean()))
        each = " ".join(f"{x:5.2f}" for x in np.sqrt(np.square(z).mean(0)))
        means = " ".join(f"{x:+5.2f}" for x in z.mean(0))
        print(
            f"{name:7} {what:16} error {error:.4f}  rms of z {size:.2f} (each {each}; means {means}; "
            f"largest {np.abs(z).max():.1f})"
        )
        claims[f"{name}: rms of z of {what}"] = (size, Z_RANGE)
    return claims


class LinePosterior:
    """The exact posterior of the straight line: normal given the standard deviations, whose
    posterior is a grid in their logarithms.

    Args:
        cohort: The data, with the same times for all individuals.
        num: Points of the grid in each direction.
    """

    def __init__(self, cohort, num):
        y = cohort["y"].values.double()
        times = cohort["y"].times[0].double()
        self.design = torch.stack([torch.ones_like(times), times], -1)
        # Truth, and the half width of the grid in logarithms: six posterior standard deviations.
        # Its steps are at most four tenths of one, so that masses are right within 0.001.
        sizes = [(0.6, 0.8), (0.3, 0.8), (0.4, 0.36)]
        axes = [math.log(x) + torch.linspace(-w, w, num).double() for x, w in sizes]
        self.axes = axes
        points = torch.cartesian_prod(*axes).exp()
        self.omega, self.sigma = points[:, :2], points[:, 2]
        design, eye = self.design, torch.eye(len(times)).double()
        marginal = (design * self.omega[:, None] ** 2) @ design.T
        marginal = marginal + self.sigma[:, None, None] ** 2 * eye
        inverse = torch.linalg.inv(marginal)
        projected = design.T @ inverse  # (grid, 2, time)
        precision = len(y) * projected @ design + torch.eye(2).double() / PRIOR_SD**2
        slope = (projected @ y.sum(0)) + PRIOR_MEAN / PRIOR_SD**2
        self.mean_covariance = torch.linalg.inv(precision)
        self.mean = (self.mean_covariance @ slope[..., None])[..., 0]
        quadratic = torch.einsum("nt,gts,ns->g", y, inverse, y)
        log_density = -0.5 * (len(y) * torch.logdet(marginal) + quadratic + torch.logdet(precision))
        log_density = log_density + 0.5 * (self.mean * slope).sum(-1)
        # Half-normal priors of scale one, and the Jacobian of the logarithms.
        log_density = log_density - 0.5 * points.square().sum(-1) + points.log().sum(-1)
        self.weights = (log_density - log_density.max()).exp()
        self.weights = self.weights / self.weights.sum()
        of_noise = design.T @ design / self.sigma[:, None, None] ** 2
        within = torch.linalg.inv(of_noise + torch.diag_embed(self.omega**-2))
        data = (y @ design)[None] / self.sigma[:, None, None] ** 2
        pull = within @ torch.diag_embed(self.omega**-2)  # of the population mean
        fixed = torch.einsum("gij,gnj->gni", within, data)
        self.phi = fixed + torch.einsum("gij,gj->gi", pull, self.mean)[:, None]
        self.phi_variance = within + pull @ self.mean_covariance @ pull.transpose(-1, -2)

    def mass(self, low, high, center, variance):
        """Mass of intervals under the mixture; tensors start with the grid."""
        sd = variance.sqrt()
        inside = torch.special.ndtr((high - center) / sd) - torch.special.ndtr((low - center) / sd)
        return torch.einsum("g,g...->...", self.weights, inside)

    def masses(self, low, high):
        """Exact mass of the intervals of every site."""
        result = {
            "mean": self.mass(
                low["mean"],
                high["mean"],
                self.mean,
                self.mean_covariance.diagonal(dim1=-2, dim2=-1),
            ),
            "phi": self.mass(
                low["phi"],
                high["phi"],
                self.phi,
                self.phi_variance.diagonal(dim1=-2, dim2=-1)[:, None],
            ),
        }
        shape = [len(axis) for axis in self.axes]
        found = []
        bounds = [(low["omega"][0], high["omega"][0]), (low["omega"][1], high["omega"][1])]
        bounds.append((low["sigma"].squeeze(), high["sigma"].squeeze()))
        for k, (a, b) in enumerate(bounds):
            density = self.weights.reshape(shape).sum([j for j in range(3) if j != k])
            # The integral over a cell, to fourth order in its width.
            inside = density.numpy()
            inside = inside + np.diff(inside, 2, prepend=0.0, append=0.0) / 24
            cumulative = np.concatenate([[0.0], np.cumsum(inside)])
            step = float(self.axes[k][1] - self.axes[k][0])
            edges = np.append(self.axes[k].numpy() - step / 2, float(self.axes[k][-1]) + step / 2)
            ends = CubicSpline(edges, cumulative)([math.log(a), math.log(b)])
            found.append(float(ends[1] - ends[0]))
        result["standard deviations"] = torch.tensor(found)
        return result


def of_posterior(num, seeds, num_samples, points):
    """Claims about the exact mass of 90 % intervals."""
    cohort = line_cohort(num, 1)
    exact = LinePosterior(cohort, points)
    found = {"mean": [], "phi": [], "standard deviations": []}
    for seed in range(seeds):
        mcmc = pa.AmortizedMCMC(line_program, num_samples, seed=seed, progress=False)
        mcmc.run(cohort)
        samples = {k: x.double() for k, x in mcmc.get_samples().items()}
        low, high = ({k: x.quantile(q, 0) for k, x in samples.items()} for q in (0.05, 0.95))
        for name, mass in exact.masses(low, high).items():
            found[name].append(mass.flatten().tolist())
    claims = {}
    for name, mass in found.items():
        mass = np.array(mass)
        inside = ((mass >= MASS_RANGE[0]) & (mass <= MASS_RANGE[1])).mean()
        each = mass.mean(0)
        print(
            f"intervals of {name}: mass {mass.mean():.4f}, sd {mass.std():.4f}, {inside:.1%} of "
            f"them within {MASS_RANGE}; means over seeds from {each.min():.4f} to {each.max():.4f}"
        )
        claims[f"posterior: smallest mean mass, {name}"] = (float(each.min()), MASS_RANGE)
        claims[f"posterior: largest mean mass, {name}"] = (float(each.max()), MASS_RANGE)
    return claims


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*MODELS, "posterior"], help="one part")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--draws", type=int, default=1000, help="posterior draws")
    parser.add_argument("--small", action="store_true", help="two seeds, few individuals")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    num, seeds, points = (12, 1, 8) if arguments.small else (40, arguments.seeds, 31)
    start, values = time.perf_counter(), {}
    for name in MODELS:
        if arguments.only in (None, name):
            values |= of_fits(name, num if name == "line" else 2 * num, seeds)
    if arguments.only in (None, "posterior"):
        draws = 100 if arguments.small else arguments.draws
        values |= of_posterior(num, seeds, draws, points)
    print(f"{time.perf_counter() - start:.0f} s")
    claims = {
        name: {"value": value, "bound": bound, "holds": bound[0] <= value <= bound[1]}
        for name, (value, bound) in values.items()
    }
    print(json.dumps({"benchmark": "statements", "claims": claims}))


if __name__ == "__main__":
    main()
