import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import RandomMissing, Resample
from pyro_amortized.errors import CohortError
from pyro_amortized.isolation import make_generator

from .programs import growth_cohort


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(0, 100))
def test_the_share_is_exact_and_never_adds(share, seed):
    cohort = growth_cohort(8, seed)
    less = RandomMissing(share, share)(cohort, make_generator(seed))
    before, after = cohort["y"].observed, less["y"].observed
    assert not (after & ~before).any()
    n = before.sum(1)
    assert torch.equal(after.sum(1), n - (share * n + 0.5).floor().long())


def test_positions_are_uniform():
    cohort = growth_cohort(1, missing=False)[torch.zeros(4000, dtype=torch.long)]
    less = RandomMissing(0.4, 0.4)(cohort, make_generator(0))
    kept = less["y"].observed.double().mean(0)
    assert ((kept - 0.6).abs() < 0.03).all()


def test_complete_individuals_and_channels_together():
    cohort = growth_cohort(2000 // 4, missing=False).repeat(4)
    less = RandomMissing(0.5, 0.5, complete=0.25)(cohort, make_generator(0))
    assert float(less["y"].observed.all(1).double().mean()) == pytest.approx(0.25, abs=0.04)


def test_design_is_reproducible_and_has_its_size():
    design = Resample(growth_cohort(4))
    one, two = (design(50, make_generator(3)) for _ in range(2))
    assert len(one) == 50
    assert torch.equal(one["y"].observed, two["y"].observed)
    assert not torch.equal(one["y"].observed, design(50, make_generator(4))["y"].observed)


def test_bad_shares():
    for arguments in ((0.5, 0.2), (-0.1, 0.2), (0.0, 1.2)):
        with pytest.raises(CohortError, match="shares"):
            RandomMissing(*arguments)
