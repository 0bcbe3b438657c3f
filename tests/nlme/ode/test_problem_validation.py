"""Wrong calls of the solver, and what the errors say."""

import pytest
import torch

from pyro_amortized import Doses, nlme
from pyro_amortized.errors import ModelError
from tests.nlme.kit import TIMES, decay, depot, f64, random_parameters


def test_events_before_the_start_and_unknown_compartments():
    p = random_parameters(1)
    with pytest.raises(ModelError, match="before the start"):
        nlme.solve(depot, torch.zeros(2), torch.tensor([[-1.0]]).double(), p)
    doses = Doses(torch.zeros(1, 1).double(), torch.ones(1, 1), compartment=torch.tensor([[3]]))
    with pytest.raises(ModelError, match="compartment 3"):
        nlme.solve(depot, torch.zeros(2), torch.ones(1, 1).double(), p, doses=doses)
    with pytest.raises(ModelError, match="compartment 3"):
        nlme.one_compartment(torch.ones(1, 1), doses, **p)


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
        (
            {"solver": "compiled", "parameters": {"k": f64(1.0).requires_grad_()}},
            "with a gradient",
        ),
        ({"piecewise": nlme.Piecewise(torch.ones(1, 1), {"k": torch.ones(1, 2)})}, "given twice"),
    ],
)
def test_wrong_calls(change, match):
    call = {
        "f": decay,
        "initial": f64(1.0),
        "times": TIMES,
        "parameters": {"k": f64(1.0)},
    } | change
    with pytest.raises(ModelError, match=match):
        nlme.solve(**call)
