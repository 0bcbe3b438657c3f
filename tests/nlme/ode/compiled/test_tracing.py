"""Right-hand sides in many styles of torch, and those that cannot be compiled."""

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from pyro_amortized.nlme.ode.compiled import systems as compiled
from pyro_amortized.nlme.ode.compiled.tracing import NotTraceable, trace
from tests.nlme.kit import TIMES, f64

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
    k, start = f64(0.5, 2.0), f64(1.0, 2.0)
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


@pytest.mark.slow
def test_functions_of_torch():
    k = f64(0.3, 0.9, 1.7)
    solution = nlme.integrate(functions, f64(0.5), TIMES.expand(3, -1), {"k": k}, rtol=1e-9)
    assert solution.solver == "compiled"
    other = nlme.solve(
        functions, f64(0.5), TIMES.expand(3, -1), {"k": k}, solver="torchdiffeq", rtol=1e-9
    )
    assert torch.allclose(solution.states, other, rtol=1e-6)
    stiff = nlme.solve(
        functions, f64(0.5), TIMES.expand(3, -1), {"k": k}, solver="implicit", rtol=1e-8
    )
    assert torch.allclose(stiff, other, rtol=1e-5)


def test_what_cannot_be_compiled_is_solved_by_torchdiffeq_with_a_logged_reason(caplog):
    def branching(t, x, p):
        return -x if float(x.sum()) > 0 else x

    def mixing(t, x, p):
        return -x * x.mean() * p["k"].unsqueeze(-1)

    compiled._logged.clear()
    for f, reason in ((branching, "GuardOnDataDependent|data-dependent|Error"), (mixing, "mixed")):
        caplog.clear()
        x = nlme.integrate(f, f64(1.0), TIMES, {"k": f64(1.0)})
        assert x.solver == "torchdiffeq"
        assert "not compiled" in caplog.text
        with pytest.raises(NotTraceable, match=reason):
            trace(f, 1, ["k"])
        with pytest.raises(ModelError, match="cannot be compiled"):
            nlme.solve(f, f64(1.0), TIMES, {"k": f64(1.0)}, solver="compiled")


def test_an_error_without_a_message_is_a_reason():
    def failing(t, x, p):
        raise NotImplementedError

    with pytest.raises(NotTraceable, match="NotImplementedError"):
        trace(failing, 1, [])
