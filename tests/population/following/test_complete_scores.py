import torch

import pyro_amortized as pa
from pyro_amortized.population.following.complete_scores import complete_scores
from tests.applications.test_design_evaluation import LINEAR, linear, study


def test_scores_of_a_linear_model_in_closed_form():
    """log p(y, u) is normal in both: the derivatives are those of two normal densities."""
    population = pa.population(linear, LINEAR)
    cohort = study(num=4)
    structure = population.structure(cohort)
    data = pa.simulate_population(structure, cohort, population.estimates, 1)
    u = torch.randn(1, 4, 1, generator=torch.Generator().manual_seed(1)).double() + 2.0
    center = structure.unconstrain_population(population.estimates)
    scores = complete_scores(structure, data, data, u, center, torch.full((4,), 1e-4).double())[0]
    x = data.covariates["x"]
    residual = u[0, :, 0] - LINEAR["level"] - LINEAR["slope"] * x
    level = residual / LINEAR["omega"] ** 2
    omega = residual**2 / LINEAR["omega"] ** 2 - 1  # of the logarithm
    error = data["y"].values - u[0]
    sigma = (error**2 / LINEAR["sigma"] ** 2 - 1).sum(1)
    expected = torch.stack([level, level * x, omega, sigma], 1)
    assert torch.allclose(scores, expected, atol=1e-5)
