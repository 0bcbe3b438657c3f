"""Times of several endpoints in one list."""

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError

FIRST = torch.tensor([[0.0, 2.0, 5.0], [1.0, 3.0, 4.0]])
SECOND = torch.tensor([[1.0, 2.0], [0.5, 9.0]])


def test_states_and_single_quantities_go_back_to_their_series():
    times, split = nlme.merge_times(FIRST, SECOND)
    first, second = split(times.square())  # of a closed form
    assert torch.equal(first, FIRST.square())
    assert torch.equal(second, SECOND.square())
    states = torch.stack([times, -times], -1).expand(4, 2, 5, 2)
    first, second = split(states)
    assert torch.equal(first[3], torch.stack([FIRST, -FIRST], -1))
    assert torch.equal(second[3], torch.stack([SECOND, -SECOND], -1))
    draws = times.expand(5, 2, 5)  # as many draws as times
    assert torch.equal(split(draws)[1][4], SECOND)


def test_values_at_other_times_are_refused():
    _, split = nlme.merge_times(FIRST, SECOND)
    with pytest.raises(ModelError, match=r"got values of shape \(2, 3\)"):
        split(FIRST)


def test_a_dictionary_is_no_delivery():
    cohort = nlme.study([1.0, 2.0], nlme.regimen(100.0), num_individuals=2)
    with pytest.raises(ModelError, match="`delivery` is a dict"):
        nlme.one_compartment(
            cohort["dv"].times, cohort.doses, cl=1.0, v=2.0, delivery={"bioavailability": 0.5}
        )
