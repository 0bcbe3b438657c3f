"""Shared parameters, batch layout and checks of models whose dynamics are solved numerically."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.diagnostics import check_model
from pyro_amortized.errors import AmortizedWarning
from pyro_amortized.model import read_structure, sites_without_layout
from pyro_amortized.model.independence_check import check_independence
from pyro_amortized.model.shared_parameters import find_shared
from pyro_amortized.nlme.ode import problem
from pyro_amortized.training.simulation.failure_checks import announce_layout
from tests.programs import curve, growth_cohort

ALL = ("mean", "omega", "rate", "sigma")


def with_shared_rate(simulated=False, opaque=False, **options):
    """Approach to a plateau at a rate that all individuals share."""
    settings = iter(()) if opaque else 1.0  # nothing is known about what an iterator gives

    def approach(t, x, p):
        assert settings is not None
        return p["rate"][:, None] * (p["plateau"][:, None] - x)

    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 0.5))
        omega = pyro.sample("omega", dist.HalfNormal(0.5))
        rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            plateau = pyro.sample("plateau", dist.LogNormal(mean, omega))
            y = cohort["y"]
            p = {"plateau": plateau, "rate": rate.expand(plateau.shape)}
            states = nlme.solve(approach, torch.zeros(1), y.times, p, **options)
            observation = dist.Normal(states[..., 0], sigma[..., None])
            if simulated:
                observation = nlme.Simulated(observation.sample, observation.batch_shape)
            pyro.sample("y", observation.mask(y.observed).to_event(1), obs=y.values)

    return model


class Solvers:
    """Counts the calls of both solvers; the compiled one may err by ``error`` in its first call,
    like one that takes another method from then on.
    """

    def __init__(self, monkeypatch, error=0.0):
        self.compiled = self.torchdiffeq = 0
        self.error, self.originals = error, (problem._compiled, problem.solve_rows)
        monkeypatch.setattr(problem, "_compiled", self.run_compiled)
        monkeypatch.setattr(problem, "solve_rows", self.run_torchdiffeq)

    def run_compiled(self, *args):
        self.compiled += 1
        states, status = self.originals[0](*args)
        return states * (1 + self.error * (self.compiled == 1)), status

    def run_torchdiffeq(self, *args):
        self.torchdiffeq += 1
        return self.originals[1](*args)


def test_only_the_parameter_in_the_dynamics_is_shared(monkeypatch):
    """And no gradient is asked for, which would take the slow solver."""
    solvers = Solvers(monkeypatch)
    structure = read_structure(with_shared_rate(), growth_cohort(6))
    assert structure.shared == ("rate", "sigma")
    assert structure.layout is not None
    assert solvers.compiled > 0
    assert solvers.torchdiffeq == 0


def test_a_model_check_needs_no_gradient(monkeypatch):
    solvers = Solvers(monkeypatch)
    text = str(check_model(with_shared_rate(), growth_cohort(6), num_draws=20))
    assert solvers.torchdiffeq == 0
    for name in ALL:
        acts = "observations" if name in ("rate", "sigma") else "individual parameters"
        (line,) = [x for x in text.splitlines() if x.startswith(f"  {name}:")]
        assert line.endswith(f"acts on the {acts}")


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("opaque", [False, True])
def test_a_solver_that_changes_its_method_is_no_dependence(monkeypatch, simulated, opaque):
    """A compiled system that finds itself stiff is solved by another method in the next call."""
    cohort = growth_cohort(6)
    structure = read_structure(with_shared_rate(simulated, opaque), cohort)
    assert structure.shared == ("rate", "sigma")
    solvers = Solvers(monkeypatch, error=1e-4)
    assert find_shared(structure, cohort, 0) == ("rate", "sigma")
    assert solvers.compiled > 1
    if not simulated:
        solvers = Solvers(monkeypatch, error=1e-2)
        check_independence(structure, cohort, 0)
        assert solvers.compiled > 1


@pytest.mark.slow
def test_a_layout_is_found_where_the_steps_depend_on_the_batch():
    """torchdiffeq takes the same steps for all individuals, so that their solutions move a little
    with the parameters of the others.
    """
    for rtol in (1e-7, 1e-4):
        model = with_shared_rate(solver="torchdiffeq", rtol=rtol)
        structure = read_structure(model, growth_cohort(6))
        assert structure.shared == ("rate", "sigma")
        assert structure.layout is not None


def test_parameters_without_a_layout_are_named():
    """Indexing from the left is the reason for one of two shared parameters."""

    def program(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            eta = pyro.sample("eta", dist.Normal(torch.zeros(2), 0.5).to_event(1))
            plateau, rate = torch.exp(mean[0] + eta[:, 0]), torch.exp(mean[1] + eta[:, 1])
            y = cohort["y"]
            normal = dist.Normal(curve(y.times, plateau, rate), sigma[..., None])
            pyro.sample("y", normal.mask(y.observed).to_event(1), obs=y.values)

    cohort = growth_cohort(6)
    structure = read_structure(program, cohort)
    assert structure.shared == ("mean", "sigma")
    assert structure.layout is None
    assert sites_without_layout(structure, cohort, seed=0) == ("mean",)
    with pytest.warns(AmortizedWarning, match=r"one value of mean per .*`mean` of shape \(indiv"):
        announce_layout(structure, cohort, 128)
