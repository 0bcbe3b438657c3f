import math

import torch

from pyro_amortized import Cohort, Doses, Series, concatenate
from tests.cohort.kit import refused

NAN = math.nan


def test_bad_doses():
    refused("`given`", lambda: Doses(torch.zeros(1, 1), torch.ones(1, 1), given=torch.ones(1, 2)))
    refused("dtype", lambda: Doses(torch.zeros(1, 1), torch.ones(1, 1), given=torch.ones(1, 1)))
    refused("negative", lambda: Doses(torch.zeros(1, 1), -torch.ones(1, 1)))
    refused("not finite", lambda: Doses(torch.tensor([[NAN]]), torch.ones(1, 1)))


def test_doses_pad_and_travel():
    series = Series(torch.zeros(2, 1), torch.ones(2, 1))
    given = torch.tensor([[True, False], [True, True]])
    doses = Doses(torch.tensor([[0.0, NAN], [0.0, 1.0]]), torch.ones(2, 2), given=given)
    cohort = Cohort({"y": series}, doses)
    assert cohort.doses.times.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert cohort.doses.amounts.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert cohort[[1]].doses.given.tolist() == [[True, True]]
    joined = concatenate([cohort[[0]], cohort])
    assert torch.equal(joined.doses.given[1:], given)
    assert joined.to(dtype=torch.float64).doses.amounts.dtype == torch.float64
