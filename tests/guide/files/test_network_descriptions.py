r"""Networks are described, and made from the description."""

from functools import partial

import pytest
import torch
from torch import nn

import pyro_amortized as pa
from pyro_amortized.encode import TimeLabels, Tokens
from pyro_amortized.errors import GuideError
from pyro_amortized.networks import AttentionNetwork, ConvolutionalNetwork, RecurrentNetwork
from tests.exact import TRUTH, linear_program
from tests.small import train

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def test_gridded_guide_saves_loads_and_reads_fewer_columns(linear, tmp_path):
    times = torch.linspace(0, 3, 5, dtype=torch.float64).expand(20, -1)
    values = torch.randn(20, 5, dtype=torch.float64)
    common = pa.Cohort({"y": pa.Series(times, values)})
    guide = train(common)
    guide.save(tmp_path)
    loaded = pa.load_guide(tmp_path, linear_program, common)
    shorter = pa.Cohort({"y": pa.Series(times[:, 1:4], values[:, 1:4])})
    points = torch.zeros(20, 2, dtype=torch.float64)
    for cohort in (common, shorter):
        posteriors = [g.individual_posterior(cohort, TRUTH) for g in (guide, loaded)]
        assert torch.equal(posteriors[0].log_prob(points), posteriors[1].log_prob(points))


class Averaged(nn.Module):
    """A summary network that is defined outside the library."""

    def __init__(self, layout, width=8):
        super().__init__()
        self.settings, self.num_summary = {"width": width}, width
        self.layer = nn.Linear(layout.num_features, width)

    def forward(self, tokens, mask, static):
        there = mask.unsqueeze(-1)
        return (self.layer(tokens) * there).sum(1) / there.sum(1).clamp(min=1)


@pytest.mark.parametrize(
    "networks",
    [
        pa.Networks(TimeLabels(), partial(RecurrentNetwork, width=8, cell=nn.LSTM)),
        pa.Networks(summary=partial(AttentionNetwork, width=8, num_summary=8)),
        pa.Networks(Tokens(2), ConvolutionalNetwork),
        pa.Networks(summary=Averaged),
    ],
)
def test_guides_with_any_network_are_saved_and_loaded(linear, tmp_path, networks):
    guide = train(linear, networks=networks)
    guide.save(tmp_path)
    loaded = pa.load_guide(tmp_path, linear_program, linear, classes=[Averaged])
    points = torch.zeros(len(linear), 2, dtype=torch.float64)
    posteriors = [g.individual_posterior(linear, TRUTH) for g in (guide, loaded)]
    assert torch.equal(posteriors[0].log_prob(points), posteriors[1].log_prob(points))
    assert loaded.patterns == guide.patterns
    if networks.summary is Averaged:
        with pytest.raises(GuideError, match=r"classes=\[Averaged\]"):
            pa.load_guide(tmp_path, linear_program, linear)
