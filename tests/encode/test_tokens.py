import torch

from pyro_amortized import Cohort, Series, concatenate
from pyro_amortized.encode import Tokens
from tests.encode.kit import fitted, wider
from tests.programs import growth_cohort


def test_indicator_says_which_channel_was_recorded():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]).repeat(5, 1, 1)
    observed = torch.tensor([[[True, False], [True, True]]]).repeat(5, 1, 1)
    times = torch.tensor([[0.0, 1.0]]).repeat(5, 1)
    cohort = Cohort({"y": Series(times, values, observed)})
    encoded = fitted(cohort, ["y"])(cohort)
    # Features: three scales of each channel, then one indicator per channel.
    assert encoded.tokens[0, :, 6:8].tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert encoded.tokens[0, 0, 3:6].abs().sum() == 0


def test_moments_are_sums_over_recorded_values():
    cohort = growth_cohort(50)
    encoder = fitted(cohort, ["y"], None, Tokens(3))
    y = cohort["y"]
    scaled = (y.values / encoder.units[0] - encoder.values[0].mean[0]) * encoder.values[0].scale[0]
    phase = (y.times - encoder.span[0]) / encoder.span[1] * torch.pi
    moments = encoder.moments(cohort).reshape(50, -1, 2)
    expected = (y.observed * (2 * phase).cos()).sum(1), (y.observed * scaled * phase.sin()).sum(1)
    assert torch.allclose(moments[:, 2, 0], expected[0])
    assert torch.allclose(moments[:, 1, 1], expected[1])
    longer = concatenate([cohort, wider(cohort)])
    assert torch.allclose(encoder.moments(longer)[:50], encoder.moments(cohort))
