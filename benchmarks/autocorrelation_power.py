r"""How well any test can find errors that go together, in short series with random effects.

In a linear model, :math:`y_i \sim N(X_i \mu, X_i \Omega X_i^\top + \sigma^2 R(\rho))`, the likelihood
ratio of an autocorrelation :math:`\rho` against the best model without it has twice the smallest
Kullback-Leibler divergence of the two, over all :math:`\Omega` and :math:`\sigma`, as its
non-centrality. It gives the power of the best test at the level at which `diagnose` asks for a look
(0.005, ten tests), here of 48 individuals. The one-compartment model of `criticism_studies.py` is
linearised in logarithms. The last line is JSON with ``claims``.

python benchmarks/autocorrelation_power.py [--small]
"""

import argparse
import json

import numpy as np
import scipy.stats
import torch
from criticism_studies import PROBLEMS, SIGMA, study_of
from scipy.optimize import minimize

LEVEL, NUM = 0.005 / 10, 48


def power(design, omega, sigma, rho):
    """Power of the likelihood ratio test of an autocorrelation."""
    num = len(design)
    lag = np.abs(np.subtract.outer(np.arange(num), np.arange(num)))
    truth = (design * omega**2) @ design.T + sigma**2 * rho**lag

    def divergence(logs):
        scale, error = np.exp(2 * logs[:-1]), np.exp(2 * logs[-1])
        ratio = np.linalg.solve((design * scale) @ design.T + error * np.eye(num), truth)
        return 0.5 * (np.trace(ratio) - num - np.linalg.slogdet(ratio)[1])

    options = {"maxiter": 6000, "maxfev": 6000, "fatol": 1e-10, "xatol": 1e-6}
    start = np.log(np.append(omega, sigma))
    runs = (
        minimize(divergence, start + move, method="Nelder-Mead", options=options)
        for move in (0, 0.3, -0.3)
    )
    noncentrality = 2 * NUM * min(run.fun for run in runs)
    return float(scipy.stats.ncx2.sf(scipy.stats.chi2.isf(LEVEL, 1), 1, noncentrality))


def designs():
    """Design, standard deviations of the effects and of the errors, by name."""
    time = np.linspace(-1, 1, 7)
    found = {}
    for number in (1, 2, 3):
        columns = np.stack([time**k for k in range(number)], 1)
        found[f"7 values, {number} effects"] = (columns, np.full(number, 3.0), 1.0)
    problem = PROBLEMS["pk"]
    study = study_of(problem, 1, 0)

    def curve(phi):
        return problem.curve(study, phi[None])[0].log()

    jacobian = torch.func.jacrev(curve)(problem.typical).numpy()
    found["one compartment, 7 values"] = (jacobian, problem.omega.numpy(), SIGMA)
    growth = np.stack([np.ones(8), np.arange(8.0)], 1)
    found["growth, 8 values"] = (growth, PROBLEMS["growth"].omega.numpy(), 1.0)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="one design")
    arguments = parser.parse_args()
    correlations, values = (0.3, 0.5, 0.7, 0.9), {}
    for name, design in list(designs().items())[: 1 if arguments.small else None]:
        values[name] = [power(*design, rho) for rho in correlations]
        parts = "  ".join(f"{r}: {p:.2f}" for r, p in zip(correlations, values[name], strict=True))
        print(f"{name:28} {parts}")
    claims = {
        f"{name}: the power grows with the correlation": {
            "value": min(np.diff(x)),
            "bound": 0.0,
            "holds": bool(min(np.diff(x)) >= 0),
        }
        for name, x in values.items()
    }
    print(json.dumps({"benchmark": "autocorrelation_power", "power": values, "claims": claims}))


if __name__ == "__main__":
    main()
