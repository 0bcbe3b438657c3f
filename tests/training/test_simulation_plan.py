"""What is trained on, with which networks, where."""

from functools import partial

import joblib
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_amortized as pa
from pyro_amortized.encode import Encoded, Form, TimeLabels, Tokens
from pyro_amortized.errors import GuideError, TrainingError
from pyro_amortized.guide.training_distributions import default_training_distribution
from pyro_amortized.missing import RandomMissing
from pyro_amortized.networks import AttentionNetwork, ConvolutionalNetwork, RecurrentNetwork
from pyro_amortized.training.batches import Pairs
from pyro_amortized.training.objective import Loss
from pyro_amortized.training.simulation.shard_simulation import Simulator
from pyro_amortized.training.simulation_plan import _workers
from tests.exact import TRUTH, linear_program
from tests.small import QUICK, train


def test_missingness_is_drawn_anew_on_every_pass(linear):
    seen = []

    def missing(cohort, generator):
        found = RandomMissing()(cohort, generator)
        seen.append(found["y"].observed)
        return found

    design = pa.Resample(linear, missing)
    options = pa.TrainingOptions(max_epochs=3, batch_size=128)
    train(design, options=options)
    masks = [m for m in seen if len(m) == 800]
    assert len(masks) >= 4
    assert len({m.float().mean().item() for m in masks}) >= 3


def test_noise_is_drawn_several_times_from_one_solution(linear):
    calls = []

    def counting(cohort):
        calls.append(len(cohort))
        linear_program(cohort)

    structure = pa.read_structure(counting, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=50)
    calls.clear()
    found = Simulator(structure, pa.Resample(linear), distribution, 1, num_noise=4)(0, 5000)
    assert calls == [5000]
    assert len(found) == 20_000
    y, phi = found.cohort["y"].values.reshape(4, 5000, -1), found.unconstrained.reshape(4, 5000, 2)
    assert torch.equal(phi[0], phi[3])
    sigma = found.shared[:5000].exp()
    difference = (y[0] - y[2]) / sigma / 2**0.5  # independent noise of the right size
    assert difference.std() == pytest.approx(1.0, abs=0.02)
    one = Simulator(structure, pa.Resample(linear), distribution, 1)(0, 5000)
    assert torch.equal(one.cohort["y"].values, y[0])


def test_networks_follow_the_shape_of_the_problem(linear):
    times = torch.linspace(0, 3, 5, dtype=torch.float64).expand(20, -1)
    common = pa.Cohort({"y": pa.Series(times, torch.ones(20, 5, dtype=torch.float64))})
    assert train(common).posterior.encoder.form.grid is not None
    assert train(linear).posterior.encoder.form.grid is None
    free = train(common, networks=pa.Networks(grid=False))
    assert free.posterior.encoder.form.grid is None
    with pytest.raises(TrainingError, match="share their times"):
        train(linear, networks=pa.Networks(grid=True))
    with pytest.raises(TrainingError, match="width"):
        pa.Networks(width=0)


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
        laws = [g.individual_posterior(cohort, TRUTH) for g in (guide, loaded)]
        assert torch.equal(laws[0].log_prob(points), laws[1].log_prob(points))


def test_bad_requests(linear):
    with pytest.raises(TrainingError, match="seed"):
        train(linear, seed=1.5)
    with pytest.raises(TrainingError, match="device"):
        pa.TrainingOptions(device="abacus")
    with pytest.raises(TrainingError, match="not finite"):
        pa.train(_hopeless, linear, num_simulations=500, options=QUICK, progress=False)


def _hopeless(cohort):
    with pyro.plate("individual", len(cohort)):
        slope = pyro.sample("slope", dist.Normal(-9.0, 1.0))
        y = cohort["y"]
        law = dist.Normal(slope.sqrt()[..., None] * y.times, 1.0).mask(y.observed).to_event(1)
        pyro.sample("y", law, obs=y.values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu(linear):
    options = pa.TrainingOptions(max_epochs=2, batch_size=128, device="cuda")
    guide = train(linear, options=options)
    assert guide.history.validation_loss[-1] < guide.history.validation_loss[0]
    assert guide.posterior.flow.loc.device.type == "cpu"


def test_half_precision_moves_the_loss_little():
    torch.manual_seed(0)
    encoder = Tokens().encoder(Form(("y",), (1,), (), has_doses=False))
    posterior = pa.Networks().build(encoder, 2, 0)
    tokens = torch.randn(200, 5, encoder.layout.num_features)
    encoded = Encoded(tokens, torch.rand(200, 5) > 0.2, torch.randn(200, encoder.num_static))
    pairs = Pairs(encoded, torch.randn(200, 2), torch.zeros(200, 0))
    whole, half = (float(Loss(posterior, kind)(pairs).detach()) for kind in (None, torch.bfloat16))
    assert half == pytest.approx(whole, abs=0.02)


def test_a_training_that_learns_nothing_is_an_error(linear):
    options = pa.TrainingOptions(max_epochs=1, batch_size=128, learning_rate=1e38, warmup=0)
    with pytest.raises(TrainingError, match="never finite"):
        train(linear, options=options)


def test_workers_asked_for_go_before_those_of_joblib():
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert _workers(pa.TrainingOptions(num_workers=0), 1e9).num_workers == 0
        assert _workers(pa.TrainingOptions(), 0.0).num_workers == 2


class Averaged(nn.Module):
    """A summary network of one's own."""

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
    laws = [g.individual_posterior(linear, TRUTH) for g in (guide, loaded)]
    assert torch.equal(laws[0].log_prob(points), laws[1].log_prob(points))
    assert loaded.patterns == guide.patterns
    if networks.summary is Averaged:
        with pytest.raises(GuideError, match=r"classes=\[Averaged\]"):
            pa.load_guide(tmp_path, linear_program, linear)


def test_with_nothing_recorded_the_answer_is_the_training_distribution(linear):
    """Within what a short training gives: moments of the guide for empty data."""
    guide = train(linear, num_simulations=6000, options=pa.TrainingOptions(max_epochs=10))
    empty = linear.with_observed({"y": torch.zeros_like(linear["y"].observed)})
    torch.manual_seed(0)
    draws = guide.individual_posterior(empty, TRUTH).sample((2000,))
    training = guide.training_distribution.individual.normal
    sd = training.standard_deviations
    assert ((draws.mean((0, 1)) - training.loc).abs() < 0.3 * sd).all()
    assert ((draws.std(0).mean(0) / sd).log().abs() < 0.25).all()
