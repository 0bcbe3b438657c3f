"""Failures of individuals: their status, what is logged, and the other individuals."""

import logging

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.nlme.ode import REASONS
from pyro_amortized.runtime.solver_context import labelled_rows
from tests.nlme.kit import TIMES, decay, f64


def test_a_failed_individual_does_not_change_the_others():
    def grow(t, x, p):
        return p["a"].unsqueeze(-1) * x**2  # explodes in finite time where a is large

    a = torch.tensor([0.1, 50.0, 0.2], dtype=torch.float64)
    times = torch.tensor([[0.5, 1.0]], dtype=torch.float64).repeat(3, 1)
    x = nlme.solve(grow, torch.ones(1), times, {"a": a})
    exact = 1 / (1 - a.unsqueeze(-1) * times)
    assert x[1].isnan().any()
    assert torch.allclose(x[[0, 2], :, 0], exact[[0, 2]], rtol=1e-5)


@pytest.mark.slow
def test_failures_have_a_status_and_are_logged(caplog):
    def grow(t, x, p):
        return p["a"].unsqueeze(-1) * x**2

    a = f64(0.1, 50.0, 0.2)
    times = torch.tensor([[0.5, 1.0]], dtype=torch.float64).expand(3, -1)
    for solver in ("explicit", "implicit", "torchdiffeq"):
        caplog.clear()
        solution = nlme.integrate(grow, f64(1.0), times, {"a": a}, solver=solver, max_steps=500)
        assert solution.failed.tolist() == [False, True, False]
        assert REASONS[int(solution.status[1])] != "solved"
        assert solution.states[1].isnan().all() or solver == "torchdiffeq"
        exact = 1 / (1 - a[[0, 2], None] * times[[0, 2]])
        assert torch.allclose(solution.states[[0, 2], :, 0], exact, rtol=1e-5)
        nlme.solve(grow, f64(1.0), times, {"a": a}, solver=solver, max_steps=500)
        assert "1 of 3 trajectories were not solved" in caplog.text
        assert "of individuals 1." in caplog.text
    limited = nlme.integrate(grow, f64(1.0), times, {"a": a}, solver="explicit", max_steps=1)
    assert REASONS[int(limited.status[0])] == "too many steps"


def test_the_log_is_quiet_where_nothing_is_wrong(caplog):
    with caplog.at_level(logging.INFO, "pyro_amortized.nlme"):
        nlme.solve(decay, f64(1.0), TIMES, {"k": f64(1.0)})
    assert not caplog.records


def test_failures_name_the_individuals_of_the_cohort(caplog):
    """Not the rows of draws times individuals with which a program runs."""

    def grow(t, x, p):
        return p["a"].unsqueeze(-1) * x**2

    times = torch.tensor([[0.5, 1.0]], dtype=torch.float64).expand(6, -1)
    a = f64(0.1, 50.0, 0.2, 0.1, 60.0, 0.1)  # two draws of three individuals
    with labelled_rows(("anna", "bert", "carl") * 2):
        nlme.solve(grow, f64(1.0), times, {"a": a}, max_steps=500)
    assert "2 of 6 trajectories" in caplog.text
    assert "of individuals bert." in caplog.text
