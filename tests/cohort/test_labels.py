import pickle

import pytest

from pyro_amortized import Cohort, concatenate
from pyro_amortized.cohort import are_default_labels
from pyro_amortized.errors import CohortError
from tests.cohort.kit import small


def labelled(*ids):
    return Cohort(small(len(ids)).series, ids=ids)


def test_numbers_that_a_user_gave_are_not_default_labels():
    assert are_default_labels(small(2).ids)
    assert are_default_labels(small(2)[[1, 1]].ids)
    assert are_default_labels(pickle.loads(pickle.dumps(small(2))).ids)
    assert small(2).ids == labelled("1", "2").ids
    assert not are_default_labels(labelled("1", "2").ids)


def test_default_labels_are_numbered_anew_and_given_ones_must_differ():
    without_covariate = Cohort(small(2).series)
    assert concatenate([without_covariate, without_covariate]).ids == ("1", "2", "3", "4")
    assert concatenate([labelled("a"), labelled("b")]).ids == ("a", "b")
    with pytest.raises(CohortError, match="'a'"):
        concatenate([labelled("a"), labelled("a")])
