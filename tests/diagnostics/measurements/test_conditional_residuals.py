"""Conditional weighted residuals against the exact ones of a linear model."""

import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import residuals
from tests.exact import TRUTH, linear_cohort, linear_program


def test_they_are_those_of_the_marginal_normal_distribution():
    """In a linear model the linearisation is exact: C^(-1/2) (y - X mu), wherever it is made."""
    cohort = linear_cohort(num=6)
    individuals = pa.sample_individuals(linear_program, cohort, TRUTH, num_draws=50, seed=1)
    found = residuals(individuals, num_simulations=40_000, seed=2).cwres
    expected = []
    for i in range(len(cohort)):
        seen = cohort["y"].observed[i]
        x = torch.stack([torch.ones(int(seen.sum())).double(), cohort["y"].times[i, seen]], -1)
        covariance = x @ torch.diag(TRUTH["omega"] ** 2) @ x.T
        covariance += TRUTH["sigma"] ** 2 * torch.eye(len(x))
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        expected.append(root @ (cohort["y"].values[i, seen] - x @ TRUTH["mean"]))
    # Mean and covariance of the population come from 40,000 draws: an error of 1 %.
    assert torch.allclose(found, torch.cat(expected), atol=0.05)


def test_table_has_the_columns_of_the_field():
    cohort = linear_cohort(num=3)
    individuals = pa.sample_individuals(linear_program, cohort, TRUTH, num_draws=50, seed=1)
    table = residuals(individuals, num_simulations=100).table()
    assert {"TIME", "TAD", "CWRES", "IWRES", "NPDE"} <= set(table.columns)
    assert table.TAD.isna().all()  # there are no doses
