"""Marginal likelihoods of classic data sets against quadrature, with guides of a short training."""

import importlib
import sys

import pytest
import torch

import pyro_amortized as pa
from tests.paths import ROOT
from tests.small import NETWORKS

EXAMPLES = ROOT / "examples" / "pharmacometrics"


def logs(*values):
    return torch.tensor(values, dtype=torch.float64).log()


def roots(*values):
    return torch.tensor(values, dtype=torch.float64).sqrt()


def number(x):
    return torch.tensor(x, dtype=torch.float64)


# -2LL by quadrature (errors below 1e-5) at given population parameters.
POINTS = {
    "orange": (
        263.390805,
        {"asymptote": number(190.0), "half": number(720.0), "scale": number(350.0)}
        | {"omega": number(30.0), "sigma": number(8.0)},
    ),
    "phenobarbital": (
        879.473052,
        {"typical": logs(0.005, 1.0), "omega": roots(0.04, 0.03), "b": number(0.12)},
    ),
    "warfarin": (
        952.731133,
        {"typical": logs(0.6, 0.135, 8.0), "omega": roots(0.5, 0.08, 0.05)}
        | {"a": number(0.4), "b": number(0.1)},
    ),
    "theophylline_censored": (
        348.404442,
        {"typical": number([0.45, 1.0, 3.45]), "omega": roots(0.4, 0.07, 0.02)}
        | {"sigma": number(0.7)},
    ),
}


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in (*POINTS, "study"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.usefixtures("rough_training_distributions")
@pytest.mark.parametrize("name", list(POINTS))
def test_marginal_likelihood_of_the_examples(examples, name):
    exact, point = POINTS[name]
    module = examples(name)
    guide = pa.train(
        module.model,
        module.cohort,
        num_simulations=4_000,
        seed=1,
        options=pa.TrainingOptions(max_epochs=4),
        networks=NETWORKS,
        progress=False,
    )
    individuals = pa.sample_individuals(
        guide.model, module.cohort, point, guide=guide, num_draws=1_000, seed=1
    )
    estimate = individuals.estimate
    error = 2 * float(estimate.mc_error.norm())
    assert error < 0.3
    assert -2 * float(estimate.log_mean.sum()) == pytest.approx(exact, abs=4 * error)
    assert float(estimate.pareto_k.max()) < 0.7
