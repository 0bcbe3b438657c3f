"""Symbolic derivatives: against finite differences."""

import pytest

from pyro_amortized.nlme.ode.compiled.expressions import apply, evaluate, symbol
from pyro_amortized.nlme.ode.compiled.symbolic_derivatives import derivatives


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
