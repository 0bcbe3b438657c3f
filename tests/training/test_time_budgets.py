r"""Time budgets."""

import pytest

from pyro_amortized.errors import TrainingError
from tests.small import train


@pytest.mark.parametrize("budget", ["5 parsecs", -3, "0s", ""])
def test_budgets_that_are_none(linear, budget):
    with pytest.raises(TrainingError, match="budget"):
        train(linear, budget=budget)
