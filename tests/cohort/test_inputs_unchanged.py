"""No function changes a tensor of its input: versions and values are the same afterwards.

The inputs are the linear Gaussian cohort, population parameters, a guide and a fit. A version
counts the operations in place on a tensor; the values also show a change through an array of NumPy
that shares the memory.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from tempfile import TemporaryDirectory

import pyro
import pytest
import torch
from torch import nn

import pyro_amortized as pa
from pyro_amortized import diagnostics, encode, missing, nlme
from pyro_amortized.cohort import as_recorded, as_scheduled, end_to_end, with_recorded
from pyro_amortized.cohort.time_grid import common_grid, onto_grid
from pyro_amortized.encode import Form
from tests.exact import TRUTH, linear_program

ONE_EPOCH = pa.TrainingOptions(max_epochs=1, batch_size=32)


def tensors(thing, path=""):
    """Every tensor that a value holds, by the path to it."""
    if isinstance(thing, torch.Tensor):
        return {path: thing}
    if isinstance(thing, nn.Module):
        parts = {**dict(thing.named_parameters()), **dict(thing.named_buffers())}
        parts |= {n: x for n, x in vars(thing).items() if is_dataclass(x)}
    elif is_dataclass(thing) and not isinstance(thing, type):
        parts = {field.name: getattr(thing, field.name) for field in fields(thing)}
    elif isinstance(thing, Mapping):
        parts = thing
    elif isinstance(thing, tuple | list):
        parts = thing._asdict() if hasattr(thing, "_asdict") else dict(enumerate(thing))
    else:
        return {}
    collected = {}
    for name, part in parts.items():
        collected |= tensors(part, f"{path}.{name}" if path else str(name))
    return collected


def simulate(cohort, guide, fit):
    pa.simulate_population(guide.structure, cohort, TRUTH, 1)


def train(cohort, guide, fit, warm_start=None):
    pa.train(
        linear_program,
        cohort,
        num_simulations=100,
        options=ONE_EPOCH,
        training_distribution=guide.training_distribution,
        warm_start=warm_start,
        progress=False,
    )


def train_from_a_guide(cohort, guide, fit):
    train(cohort, guide, fit, warm_start=guide)


def sharpen(cohort, guide, fit):
    pa.sharpen(guide, cohort, num_simulations=100, options=ONE_EPOCH, progress=False)


def sample_individuals(cohort, guide, fit):
    posteriors = pa.sample_individuals(guide.model, cohort, TRUTH, guide=guide, num_draws=50)
    posteriors.moments()


def marginal_likelihood(cohort, guide, fit):
    pa.marginal_likelihood(linear_program, cohort, TRUTH, guide=guide, num_draws=50)


def fit_population(cohort, guide, fit):
    pa.fit_population(
        linear_program, cohort, guide=guide, start=TRUTH, num_draws=100, num_starts=1, retrain=False
    )


def marginal_elbo(cohort, guide, fit):
    pa.MarginalELBO(num_particles=5).loss(linear_program, guide, cohort)


def marginalize(cohort, guide, fit):
    collapsed = pa.marginalize(linear_program, guide=guide, population=TRUTH, num_draws=25)
    pyro.poutine.trace(pyro.condition(collapsed, TRUTH)).get_trace(cohort).log_prob_sum()


def sample_population(cohort, guide, fit):
    draws = pa.sample_population(fit, num_draws=20, num_proposals=50)
    diagnostics.to_arviz(draws)


def profile(cohort, guide, fit):
    pa.profile_likelihood(fit, "sigma")


def bootstrap(cohort, guide, fit):
    pa.bootstrap(fit, num_replicates=2, num_draws=50)


def calibrate(cohort, guide, fit):
    diagnostics.calibrate(guide, cohort, num_individuals=20, num_draws=200)


def to_arviz(cohort, guide, fit):
    diagnostics.to_arviz(fit, num_draws=50, num_prior_draws=20)


def save(cohort, guide, fit):
    with TemporaryDirectory() as folder:
        fit.save(folder)


def construct(cohort, guide, fit):
    y = cohort["y"]
    pa.Cohort({"y": pa.Series(y.times, y.values, y.observed)}, covariates={"x": y.values[:, 0]})


def rearrange(cohort, guide, fit):
    pa.concatenate([cohort, cohort[:3]])
    end_to_end([cohort, cohort])
    cohort.repeat(2)["y"].values.add_(1.0)
    cohort.to(dtype=torch.float32).with_values({"y": cohort["y"].values.float()})
    shared_times = pa.Cohort({"y": pa.Series(cohort["y"].times[:1], cohort["y"].values[:1])})
    onto_grid(shared_times, common_grid(shared_times, ["y"]))


def record(cohort, guide, fit):
    recorded = with_recorded(cohort, "y")
    as_recorded(recorded)
    as_scheduled(recorded)


def remove_values(cohort, guide, fit):
    mechanisms = [
        missing.RandomMissing(),
        missing.NumberMissing(1, 3),
        missing.BernoulliMissing(0.5),
        missing.ChannelMissing(0.5),
        missing.Gaps(3),
        missing.Dropout(),
        missing.BelowLimit(1.0),
        missing.PatternsOf(cohort),
        missing.OnlySeries(("y",), missing.Gaps(3)),
    ]
    mechanisms += [missing.AllOf(tuple(mechanisms)), missing.OneOf(tuple(mechanisms))]
    for mechanism in mechanisms:
        mechanism(cohort, torch.Generator().manual_seed(0))
    pa.Resample(cohort)(10, torch.Generator().manual_seed(0))


def encode_data(cohort, guide, fit):
    for encoding in (encode.Tokens(), encode.TimeLabels(), encode.Deletion()):
        encoding.encoder(Form.of(cohort, ["y"])).fit(cohort)(cohort)
    guide.posterior.encoder(cohort)


def read_and_write_tables(cohort, guide, fit):
    nlme.read_table(nlme.to_table(cohort, "y"), series="y")


def diagnose(cohort, guide, fit):
    diagnostics.diagnose(fit, num_individuals=100, num_draws=100)


def summarize(cohort, guide, fit):
    fit.summary()
    diagnostics.residuals(fit, num_simulations=50)
    diagnostics.check_data(guide, cohort, individuals=fit.individuals, num_simulated=100)


def read_structure(cohort, guide, fit):
    pa.read_structure(linear_program, cohort)


FUNCTIONS = [
    construct,
    rearrange,
    record,
    remove_values,
    encode_data,
    read_and_write_tables,
    read_structure,
    simulate,
    train,
    train_from_a_guide,
    sharpen,
    sample_individuals,
    marginal_likelihood,
    fit_population,
    sample_population,
    profile,
    bootstrap,
    marginal_elbo,
    marginalize,
    calibrate,
    diagnose,
    summarize,
    to_arviz,
    save,
]


SLOW = {sample_population}


@pytest.mark.parametrize(
    "function",
    [pytest.param(f, marks=pytest.mark.slow if f in SLOW else ()) for f in FUNCTIONS],
    ids=lambda f: f.__name__,
)
@pytest.mark.usefixtures("small_populations")
def test_the_input_is_unchanged(function, linear, linear_guide, small_fit):
    inputs = {"cohort": linear, "population": TRUTH, "guide": linear_guide, "fit": small_fit}
    watched = tensors(inputs | {"networks": linear_guide.posterior})
    versions = {name: x._version for name, x in watched.items()}
    values = {name: x.detach().clone() for name, x in watched.items()}
    function(linear, linear_guide, small_fit)
    assert {name: x._version for name, x in watched.items()} == versions
    assert [name for name, x in watched.items() if not _equal(x, values[name])] == []


def _equal(first, second):
    """NaN equals NaN: standard errors that are not determined are NaN."""
    are_nan = torch.equal(first.isnan(), second.isnan())
    return are_nan and torch.equal(first.nan_to_num(), second.nan_to_num())


def test_a_change_would_be_noticed(linear, linear_guide, small_fit):
    """The collection reaches what the functions get: data, draws, weights of the networks."""
    watched = tensors({"cohort": linear, "guide": linear_guide, "fit": small_fit})
    watched |= tensors(linear_guide.posterior, "networks")
    assert {"cohort.series.y.values", "cohort.series.y.observed", "fit.vector"} <= set(watched)
    assert "guide.training_distribution.individual.normal.loc" in watched
    assert "fit.individuals.unconstrained" in watched
    assert any(name.startswith("networks.flow") for name in watched)
