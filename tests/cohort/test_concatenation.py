import pytest

from pyro_amortized import Cohort, concatenate
from pyro_amortized.errors import CohortError
from tests.cohort.kit import small


def test_individuals_follow_each_other_and_times_are_padded():
    cohort = small()
    both = concatenate([cohort, small(2, 6)])
    assert both["y"].values.shape == (5, 6)
    assert both.num_observations == cohort.num_observations + 12
    assert both["y"].times[0].tolist() == [0, 1, 2, 3, 3, 3]
    with pytest.raises(CohortError, match="was concatenated with"):
        concatenate([cohort, Cohort({"z": cohort["y"]})])
