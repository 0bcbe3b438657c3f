import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.missing import (
    NumberMissing,
)
from pyro_amortized.missing.training_patterns import TrainingPatterns
from pyro_amortized.runtime.random_numbers import make_generator
from tests.missing.kit import complete


def test_the_patterns_of_training_are_remembered():
    trained = TrainingPatterns.of(NumberMissing(0, 4)(complete(), make_generator(0)), ["y"], None)
    assert trained.unusual(complete(50)) == {}
    observed = torch.zeros(3, 8, dtype=torch.bool)
    observed[0, :5], observed[1, :2], observed[2, 3:7] = True, True, True
    flagged = trained.unusual(complete(3).with_observed({"y": observed}))
    assert list(flagged) == ["2"]
    assert "number of recorded values of 'y' is 2, in training 4 to 8" in flagged["2"]
    later = Cohort({"y": Series(complete(1)["y"].times + 5, complete(1)["y"].values)})
    assert "first recorded time of 'y' is 5" in trained.unusual(later)["1"]
    grid = {"y": list(range(8))}
    fixed = TrainingPatterns.of(complete(), ["y"], grid)
    hole = torch.ones(1, 8, dtype=torch.bool)
    hole[0, 3] = False
    reasons = TrainingPatterns(places=fixed.places, grid=grid).unusual(
        complete(1).with_observed({"y": hole})
    )
    assert "time 3 was never missing" in reasons["1"]
