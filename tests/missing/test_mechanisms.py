import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import RandomMissing
from pyro_amortized.errors import CohortError
from pyro_amortized.missing import (
    BelowLimit,
    BernoulliMissing,
    ChannelMissing,
    Dropout,
    Gaps,
    NumberMissing,
    OneOf,
    PatternsOf,
    Schedule,
)
from pyro_amortized.runtime.random_numbers import make_generator
from tests.missing.kit import complete, recorded
from tests.programs import growth_cohort


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(0, 100))
def test_the_share_is_exact_and_never_adds(share, seed):
    cohort = growth_cohort(8, seed)
    masked = RandomMissing(share, share)(cohort, make_generator(seed))
    before, after = cohort["y"].observed, masked["y"].observed
    assert not (after & ~before).any()
    n = before.sum(1)
    assert torch.equal(after.sum(1), n - (share * n + 0.5).floor().long())


def test_positions_are_uniform():
    cohort = growth_cohort(1, missing=False)[torch.zeros(4000, dtype=torch.long)]
    masked = RandomMissing(0.4, 0.4)(cohort, make_generator(0))
    share = masked["y"].observed.double().mean(0)
    assert ((share - 0.6).abs() < 0.03).all()


def test_complete_individuals_and_channels_together():
    cohort = growth_cohort(2000 // 4, missing=False).repeat(4)
    masked = RandomMissing(0.5, 0.5, complete=0.25)(cohort, make_generator(0))
    assert float(masked["y"].observed.all(1).double().mean()) == pytest.approx(0.25, abs=0.04)


def test_bad_shares():
    for arguments in ((0.5, 0.2), (-0.1, 0.2), (0.0, 1.2)):
        with pytest.raises(CohortError, match="shares"):
            RandomMissing(*arguments)


def test_a_uniform_number_goes_missing_at_uniform_positions():
    observed = recorded(NumberMissing(1, 4))
    counts = torch.bincount((~observed).sum(1), minlength=9)
    assert counts[0] == counts[5:].sum() == 0
    assert ((counts[1:5] - 500).abs() < 4 * 20).all()
    assert ((observed.double().mean(0) - (1 - 2.5 / 8)).abs() < 0.05).all()


def test_bernoulli_goes_value_by_value_and_channel_by_channel():
    observed = recorded(BernoulliMissing(0.3), complete(channels=(2,)))
    assert observed.double().mean() == pytest.approx(0.7, abs=0.01)
    both = (~observed).all(-1).double().mean()
    assert both == pytest.approx(0.09, abs=0.01)  # channels are independent
    spread = recorded(BernoulliMissing(0.0, 0.8)).double().mean(1).std()
    assert spread > recorded(BernoulliMissing(0.4)).double().mean(1).std() + 0.05


def test_whole_channels_go_missing():
    observed = recorded(ChannelMissing(0.25), complete(channels=(3,)))
    assert torch.equal(observed.all(1), observed.any(1))
    assert observed.all(1).double().mean() == pytest.approx(0.75, abs=0.03)


def test_gaps_are_runs():
    observed = recorded(Gaps(3))
    missing = (~observed).sum(1)
    assert missing.unique().tolist() == [0, 1, 2, 3]
    edges = (~observed).int().diff(dim=1, prepend=torch.zeros(2000, 1).int()).clamp(min=0).sum(1)
    assert edges.max() == 1
    assert (~observed)[:, 0].any()
    assert (~observed)[:, -1].any()


def test_dropout_is_monotone():
    observed = recorded(Dropout(least=2))
    assert (observed.int().diff(dim=1) <= 0).all()
    assert observed.sum(1).unique().tolist() == [2, 3, 4, 5, 6, 7, 8]
    holes = complete().with_observed({"y": torch.tensor([True, False] * 4).expand(2000, -1)})
    assert recorded(Dropout(least=1), holes).sum(1).unique().tolist() == [1, 2, 3, 4]


def test_below_a_limit():
    cohort = complete()
    assert torch.equal(recorded(BelowLimit(0.4), cohort), cohort["y"].values >= 0.4)


def test_patterns_of_a_cohort():
    source = complete(3).with_observed({"y": torch.tensor([[True] * 8, [False] * 8, [True] * 8])})
    observed = recorded(PatternsOf(source))
    assert torch.equal(observed.all(1), observed.any(1))
    assert observed[:, 0].double().mean() == pytest.approx(2 / 3, abs=0.05)
    with pytest.raises(CohortError, match="columns"):
        PatternsOf(complete(3, 5))(complete(), make_generator(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NumberMissing(3, 1),
        lambda: BernoulliMissing(-0.1),
        lambda: BernoulliMissing(0.5, 1.2),
        lambda: ChannelMissing(2.0),
        lambda: Gaps(-1),
        lambda: Dropout(-1),
        lambda: OneOf((Gaps(1),), (1.0, 2.0)),
        lambda: Schedule({"y": [1.0, 0.0]}),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(CohortError):
        make()
