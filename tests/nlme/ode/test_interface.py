"""ODEs: compiled solvers beside torchdiffeq, SciPy and exact solutions; failures; memory."""

import logging

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses
from pyro_amortized.errors import ModelError
from pyro_amortized.nlme.ode import REASONS
from pyro_amortized.nlme.ode.compiled import systems as compiled
from pyro_amortized.nlme.ode.compiled.derivatives import derivatives
from pyro_amortized.nlme.ode.compiled.expressions import apply, evaluate, symbol
from pyro_amortized.nlme.ode.compiled.tracing import NotTraceable, trace
from pyro_amortized.runtime.solver_context import SolutionCache, caching

TIMES = torch.tensor([[0.0, 0.5, 1.0, 2.0]], dtype=torch.float64)


def one(*values):
    return torch.tensor(values, dtype=torch.float64)


def robertson(t, x, p):
    a, b, c = x.unbind(-1)
    slow, fast, back = p["k"] * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack([-slow + back, slow - back - fast, fast], -1)


# Right-hand sides in many styles of torch, each with its exact slope for one individual.

MATRIX = torch.tensor([[-1.0, 0.5], [0.25, -0.75]], dtype=torch.float64)


def by_matrix(t, x, p):
    return x @ MATRIX.T * p["k"].unsqueeze(-1)


def by_einsum(t, x, p):
    return torch.einsum("ij,nj->ni", MATRIX, x) * p["k"][:, None]


def by_matmul(t, x, p):
    return (MATRIX @ x.unsqueeze(-1)).squeeze(-1) * p["k"][..., None]


def by_columns(t, x, p):
    a, b = x[:, 0], x[..., 1]
    return torch.stack((p["k"] * (-a + 0.5 * b), p["k"] * (0.25 * a - 0.75 * b)), dim=1)


def by_assignment(t, x, p):
    flows = torch.cat([x[:, :1] * -1 + x[:, 1:] / 2, x[:, :1] / 4 - 0.75 * x[:, 1:]], dim=-1)
    return flows * p["k"].reshape(-1, 1)


def by_chunks(t, x, p):
    a, b = x.chunk(2, -1)
    k = p["k"].view(-1, 1)
    return torch.hstack([k * (b / 2 - a), k * (a / 4 - 3 * b / 4)])


@pytest.mark.parametrize(
    "f", [by_matrix, by_einsum, by_matmul, by_columns, by_assignment, by_chunks]
)
def test_styles_of_writing_a_right_hand_side(f):
    k, start = one(0.5, 2.0), one(1.0, 2.0)
    x = nlme.integrate(f, start, TIMES.expand(2, -1), {"k": k}, rtol=1e-10)
    assert x.solver == "compiled"
    for i in range(2):
        for j, t in enumerate(TIMES[0]):
            exact = torch.linalg.matrix_exp(MATRIX * k[i] * t) @ start
            assert torch.allclose(x.states[i, j], exact, rtol=1e-8)


def functions(t, x, p):
    y, k = x[:, 0], p["k"]
    terms = torch.sin(t) * torch.exp(-k * y) + torch.tanh(y) - torch.sigmoid(k - y) * y.abs()
    terms = terms + torch.where(y > 1, y.sqrt(), y**2) - torch.clamp(y, 0.2, 0.9) ** k
    terms = terms + torch.log1p(y**2) - torch.maximum(y, k) * torch.cos(y) / (1 + k)
    terms = terms - torch.nn.functional.softplus(y) + torch.relu(y - 1) + y.pow(1.5).clamp(max=2)
    terms = terms + torch.rsqrt(1 + y) - torch.expm1(-y) + torch.erf(y) + torch.atan(k * y)
    return terms.unsqueeze(-1) / 3


def test_functions_of_torch():
    k = one(0.3, 0.9, 1.7)
    found = nlme.integrate(functions, one(0.5), TIMES.expand(3, -1), {"k": k}, rtol=1e-9)
    assert found.solver == "compiled"
    other = nlme.solve(
        functions, one(0.5), TIMES.expand(3, -1), {"k": k}, solver="torchdiffeq", rtol=1e-9
    )
    assert torch.allclose(found.states, other, rtol=1e-6)
    stiff = nlme.solve(
        functions, one(0.5), TIMES.expand(3, -1), {"k": k}, solver="implicit", rtol=1e-8
    )
    assert torch.allclose(stiff, other, rtol=1e-5)


def test_symbolic_derivatives_equal_differences():
    x, y = symbol("x"), symbol("y")
    at = {"x": 0.7, "y": 0.4}
    terms = [
        apply(name, x * y + 0.2) for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "tanh")
    ]
    terms += [apply(name, x - y) for name in ("sinh", "cosh", "atan", "asin", "acos", "erf", "abs")]
    terms += [x**y, x**3, 2**x, x / y, apply("max", x, y), apply("min", x, y), apply("log1p", x)]
    terms += [apply("where", apply("gt", x, y), x * x, y), apply("expm1", x / (1 + y))]
    for term in terms:
        for name, exact in zip("xy", evaluate(derivatives(term, ["x", "y"]), at), strict=True):
            step = 1e-6
            ends = [evaluate([term], at | {name: at[name] + s})[0] for s in (step, -step)]
            assert exact == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("method", ["explicit", "implicit"])
def test_order_of_the_solvers(method):
    """Halving the tolerance by 1e4 reduces the error in proportion; dense output included."""

    def spiral(t, x, p):
        return torch.stack([p["k"] * x[:, 1] - x[:, 0] * t, -x[:, 0] - x[:, 1] * t], -1)

    times = torch.linspace(0, 3, 40, dtype=torch.float64)[None]
    truth = solve_ivp(
        lambda t, x: (x[1] - x[0] * t, -x[0] - x[1] * t),
        (0, 3),
        (1.0, 0.0),
        "DOP853",
        times[0].numpy(),
        rtol=1e-13,
        atol=1e-14,
    ).y.T
    for rtol in (1e-4, 1e-8):
        x = nlme.solve(spiral, one(1.0, 0.0), times, {"k": one(1.0)}, solver=method, rtol=rtol)
        assert float((x[0] - torch.from_numpy(truth)).abs().max()) < 50 * rtol


def test_stiff_systems_are_found_and_solved():
    times = torch.tensor([[0.4, 4.0, 40.0, 400.0, 4000.0]], dtype=torch.float64)
    found = nlme.integrate(robertson, one(1, 0, 0), times, {"k": one(0.04)}, rtol=1e-8)
    assert not found.failed.any()
    # Published solution (Hairer and Wanner, IVP test set).
    exact = [0.9851721, 0.9055186, 0.7158271, 0.4505186, 0.1832022]
    assert found.states[0, :, 0].tolist() == pytest.approx(exact, rel=1e-5)
    system = compiled.system_for(robertson, 3, {"k": one(0.04)}, torch.ones(1, 3))
    assert system.is_stiff


def test_every_individual_has_its_own_steps():
    """A difficult individual neither slows the others down nor spoils their error."""
    k = one(1.0, 1e4, 2.0)

    def relax(t, x, p):
        return p["k"].unsqueeze(-1) * (torch.cos(t).unsqueeze(-1) - x)

    alone = nlme.solve(relax, one(0.0), TIMES, {"k": k[:1]})
    together = nlme.solve(relax, one(0.0), TIMES.expand(3, -1), {"k": k})
    assert torch.equal(alone[0], together[0])


def test_failures_have_a_status_and_are_logged(caplog):
    def grow(t, x, p):
        return p["a"].unsqueeze(-1) * x**2

    a = one(0.1, 50.0, 0.2)
    times = torch.tensor([[0.5, 1.0]], dtype=torch.float64).expand(3, -1)
    for solver in ("explicit", "implicit", "torchdiffeq"):
        caplog.clear()
        found = nlme.integrate(grow, one(1.0), times, {"a": a}, solver=solver, max_steps=500)
        assert found.failed.tolist() == [False, True, False]
        assert REASONS[int(found.status[1])] != "solved"
        assert found.states[1].isnan().all() or solver == "torchdiffeq"
        exact = 1 / (1 - a[[0, 2], None] * times[[0, 2]])
        assert torch.allclose(found.states[[0, 2], :, 0], exact, rtol=1e-5)
        nlme.solve(grow, one(1.0), times, {"a": a}, solver=solver, max_steps=500)
        assert "1 of 3 trajectories were not solved" in caplog.text
        assert "individuals [1]" in caplog.text
    few = nlme.integrate(grow, one(1.0), times, {"a": a}, solver="explicit", max_steps=1)
    assert REASONS[int(few.status[0])] == "too many steps"


def test_a_system_without_steady_state_says_so():
    def fills(t, x, p):
        return p["k"].unsqueeze(-1) * torch.zeros_like(x)

    doses = Doses(
        torch.zeros(1, 1).double(),
        torch.ones(1, 1).double(),
        intervals=torch.full((1, 1), 12.0).double(),
        steady_state=torch.ones(1, 1).long(),
    )
    for solver in ("compiled", "torchdiffeq"):
        found = nlme.integrate(fills, one(0.0), TIMES, {"k": one(1.0)}, doses=doses, solver=solver)
        assert REASONS[int(found.status[0])] == "no steady state"


def test_nonlinear_steady_state():
    """Michaelis-Menten elimination: the state repeats itself after every dose."""

    def saturable(t, x, p):
        return -p["vmax"].unsqueeze(-1) * x / (10 + x)

    times = torch.tensor([[1.0, 13.0, 25.0, 37.0]], dtype=torch.float64)
    doses = Doses(
        torch.tensor([[0.0, 12.0, 24.0, 36.0]], dtype=torch.float64),
        torch.full((1, 4), 50.0).double(),
        intervals=torch.tensor([[12.0, 0, 0, 0]], dtype=torch.float64),
        steady_state=torch.tensor([[1, 0, 0, 0]]),
    )
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(
            saturable, one(0.0), times, {"vmax": one(6.0)}, doses=doses, solver=solver, rtol=1e-9
        )
        assert torch.allclose(x[0, :, 0], x[0, :1, 0].expand(4), rtol=1e-6)
    vmax = one(6.0).requires_grad_()
    x = nlme.solve(saturable, one(0.0), times, {"vmax": vmax}, doses=doses, rtol=1e-9)
    (gradient,) = torch.autograd.grad(x[0, 0, 0], vmax)
    ends = [
        nlme.solve(saturable, one(0.0), times, {"vmax": one(v)}, doses=doses, rtol=1e-10)[0, 0, 0]
        for v in (6.001, 5.999)
    ]
    assert float(gradient) == pytest.approx(float(ends[0] - ends[1]) / 0.002, rel=1e-4)


def test_what_cannot_be_compiled_falls_back_and_says_why(caplog):
    def branching(t, x, p):
        return -x if float(x.sum()) > 0 else x

    def mixing(t, x, p):
        return -x * x.mean() * p["k"].unsqueeze(-1)

    compiled._logged.clear()
    for f, reason in ((branching, "GuardOnDataDependent|data-dependent|Error"), (mixing, "mixed")):
        caplog.clear()
        x = nlme.integrate(f, one(1.0), TIMES, {"k": one(1.0)})
        assert x.solver == "torchdiffeq"
        assert "not compiled" in caplog.text
        with pytest.raises(NotTraceable, match=reason):
            trace(f, 1, ["k"])
        with pytest.raises(ModelError, match="cannot be compiled"):
            nlme.solve(f, one(1.0), TIMES, {"k": one(1.0)}, solver="compiled")


def test_captured_tensors_are_read_again():
    """A right-hand side that refers to a tensor is traced at every call: the tensor may change."""
    rate = torch.tensor(1.0, dtype=torch.float64)

    def decay(t, x, p):
        return -rate * x * p["one"].unsqueeze(-1)

    first = nlme.solve(decay, one(1.0), TIMES, {"one": one(1.0)})
    rate.fill_(2.0)
    second = nlme.solve(decay, one(1.0), TIMES, {"one": one(1.0)})
    assert float(first[0, 2, 0]) == pytest.approx(np.exp(-1), rel=1e-6)
    assert float(second[0, 2, 0]) == pytest.approx(np.exp(-2), rel=1e-6)


def test_gradients_of_captured_tensors_are_not_lost():
    """A population parameter that the right-hand side refers to by itself."""
    rate = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def decay(t, x, p):
        return -rate * x * p["one"].unsqueeze(-1)

    found = nlme.integrate(decay, one(1.0), TIMES, {"one": one(1.0)})
    assert found.solver == "torchdiffeq"
    (gradient,) = torch.autograd.grad(found.states[0, 2, 0], rate)
    assert float(gradient) == pytest.approx(-np.exp(-1.3), rel=1e-5)
    with torch.no_grad():
        assert nlme.integrate(decay, one(1.0), TIMES, {"one": one(1.0)}).solver == "compiled"


def test_captured_values_that_keep_changing_are_not_compiled_for_ever(caplog):
    rate = torch.tensor(1.0, dtype=torch.float64)

    def decay(t, x, p):
        return -rate * x

    solvers = []
    for j in range(10):
        rate.fill_(1.0 + j / 10)
        found = nlme.integrate(decay, one(1.0), TIMES, {}, solver="auto")
        solvers.append(found.solver)
        assert float(found.states[0, 2, 0]) == pytest.approx(np.exp(-1 - j / 10), rel=1e-6)
    assert solvers == ["compiled"] * 8 + ["torchdiffeq"] * 2
    assert caplog.text.count("keep changing; pass them as parameters") == 1


def test_closures_over_numbers_are_told_apart():
    def with_rate(rate):
        return lambda t, x, p: -rate * x

    for rate in (1.0, 2.0, 1.0):
        x = nlme.solve(with_rate(rate), one(1.0), TIMES, {"k": one(1.0)})
        assert float(x[0, 2, 0]) == pytest.approx(np.exp(-rate), rel=1e-6)


def test_draw_dimensions_broadcast():
    def decay(t, x, p):
        return -p["k"].unsqueeze(-1) * x

    k = torch.rand(5, 3, dtype=torch.float64)
    times = TIMES.expand(3, -1)
    start = torch.rand(3, 1, dtype=torch.float64)
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(decay, start, times, {"k": k}, solver=solver)
        assert x.shape == (5, 3, 4, 1)
        exact = start[None, :, None] * torch.exp(-k[..., None, None] * times[None, ..., None])
        assert torch.allclose(x, exact, rtol=1e-6)


def test_parameters_that_jump():
    def decay(t, x, p):
        return -(p["k"] * p["scale"]).unsqueeze(-1) * x

    changes = torch.tensor([[1.0], [torch.inf]], dtype=torch.float64)
    k = torch.tensor([[1.0, 3.0], [2.0, 9.0]], dtype=torch.float64)
    pieces = nlme.Piecewise(changes, {"k": k})
    times = TIMES.expand(2, -1)
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(
            decay, one(1.0), times, {"scale": one(1.0, 1.0)}, piecewise=pieces, solver=solver
        )
        exact = [[0, 0.5, 1.0, 4.0], [0, 1.0, 2.0, 4.0]]
        assert torch.allclose(-x[..., 0].log(), one(*exact[0], *exact[1]).view(2, 4), atol=1e-6)


def test_large_systems_are_solved_in_loops():
    def diffusion(t, x, p):
        left, right = torch.roll(x, 1, -1), torch.roll(x, -1, -1)
        return p["d"].unsqueeze(-1) * (left + right - 2 * x)

    start = torch.zeros(20, dtype=torch.float64)
    start[0] = 1.0
    for solver in ("explicit", "implicit", "torchdiffeq"):
        x = nlme.solve(diffusion, start, TIMES, {"d": one(3.0)}, solver=solver, rtol=1e-8)
        matrix = torch.roll(torch.eye(20), 1, 0) + torch.roll(torch.eye(20), -1, 0)
        matrix = 3.0 * (matrix - 2 * torch.eye(20)).double()
        exact = torch.linalg.matrix_exp(matrix * 2.0) @ start
        assert torch.allclose(x[0, -1], exact, atol=1e-6)


def test_solutions_are_remembered_while_inputs_stay():
    def solved(k):
        return nlme.solve(DECAY, one(1.0), TIMES, {"k": one(k)}, solver="torchdiffeq")

    with caching(SolutionCache()) as memory:
        first = solved(1.0)
        again = solved(1.0)
        assert memory.num_hits == 1
        assert again is first
        other = solved(2.0)
        assert memory.num_hits == 1
        assert not torch.equal(first, other)
    assert solved(1.0) is not first


def test_a_remembered_steady_state_knows_its_compartment():
    """A constant infusion since ever is no event: where it enters must be asked all the same."""

    def both(t, x, p):
        return -p["k"].unsqueeze(-1) * x

    def level(compartment):
        doses = Doses(
            torch.zeros(1, 1).double(),
            torch.zeros(1, 1).double(),
            rates=one(3.0).unsqueeze(0),
            steady_state=torch.ones(1, 1, dtype=torch.long),
            compartment=torch.tensor([[compartment]]),
        )
        found = nlme.solve(
            both, one(0.0, 0.0), TIMES[:, :1], {"k": one(1.0)}, doses=doses, solver="torchdiffeq"
        )
        return found[0, 0].tolist()

    with caching(SolutionCache()):
        assert level(1) == pytest.approx([3.0, 0.0], abs=1e-5)
        assert level(2) == pytest.approx([0.0, 3.0], abs=1e-5)


def test_refusals_are_remembered_for_a_while_only():
    """A key for each value of a captured number must not grow for ever."""

    def made(k):
        def mixing(t, x, p):
            return -k * x * x.mean()

        return mixing

    for k in range(compiled.LIMITS.max_cached + 3):
        nlme.solve(made(float(k)), one(1.0), TIMES[:, :1], {"k": one(1.0)})
    assert len(compiled._refused) <= compiled.LIMITS.max_cached


def DECAY(t, x, p):
    return -p["k"].unsqueeze(-1) * x


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"times": torch.zeros(3)}, r"\(individual, time\)"),
        ({"times": torch.tensor([[1.0, 0.5]])}, "not sorted"),
        ({"times": torch.tensor([[-1.0]])}, "before the start"),
        ({"solver": "magic"}, "solver='magic'"),
        ({"rtol": 0.0}, "rtol=0.0"),
        ({"doses": Doses(torch.tensor([[-1.0]]), torch.ones(1, 1))}, "dose at time -1.0"),
        (
            {"doses": Doses(torch.zeros(1, 1), torch.ones(1, 1), compartment=torch.tensor([[2]]))},
            "compartment 2 of 1",
        ),
        ({"solver": "compiled", "parameters": {"k": one(1.0).requires_grad_()}}, "with a gradient"),
        ({"piecewise": nlme.Piecewise(torch.ones(1, 1), {"k": torch.ones(1, 2)})}, "given twice"),
    ],
)
def test_wrong_calls(change, match):
    call = {"f": DECAY, "initial": one(1.0), "times": TIMES, "parameters": {"k": one(1.0)}} | change
    with pytest.raises(ModelError, match=match):
        nlme.solve(**call)


def test_dtype_and_threads():
    """float32 in, float32 out; the same rows whatever the number of threads."""
    k = torch.rand(20_000)
    times = TIMES.float().expand(20_000, -1)
    alone = nlme.solve(DECAY, torch.ones(1), times, {"k": k})
    assert alone.dtype == torch.float32
    found = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        both = nlme.solve(DECAY, torch.ones(1), times, {"k": k})
    finally:
        torch.set_num_threads(found)
    assert torch.equal(alone, both)


def test_the_log_is_quiet_where_nothing_is_wrong(caplog):
    with caplog.at_level(logging.INFO, "pyro_amortized.nlme"):
        nlme.solve(DECAY, one(1.0), TIMES, {"k": one(1.0)})
    assert not caplog.records
