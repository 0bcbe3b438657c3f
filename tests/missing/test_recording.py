"""Recording as a part of the model, distributions without a density, and the masks of Pyro."""

import math

import numpy
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import calibrate
from pyro_amortized.errors import ModelError
from pyro_amortized.guide.default_distribution import default_training_distribution
from pyro_amortized.missing import NumberMissing, Schedule
from pyro_amortized.training.simulation.shard_simulation import Simulator
from tests.programs import growth_cohort

pytestmark = pytest.mark.usefixtures("rough_training_distributions")

TIMES = [0.0, 1.0, 2.0, 3.0]
OPTIONS = pa.TrainingOptions(max_epochs=3, batch_size=256)


def by_value(cohort):
    """Values above 1 are mostly lost."""
    with pyro.plate("individual", len(cohort)):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        y = cohort["y"]
        distribution = dist.Normal(level[..., None] + 0 * y.times, 0.5)
        value = pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

        def rule(v):
            return torch.sigmoid(-4 * (v - 1))

        p = nlme.recording_probability(rule, distribution, value, y.observed)
        record = cohort["y_recorded"]
        pyro.sample("y_recorded", dist.Bernoulli(p).to_event(1), obs=record.values)


DESIGN = Schedule({"y": TIMES, "y_recorded": TIMES})


def simulated(num=4000, model=by_value, design=DESIGN):
    structure = pa.read_structure(model, design.complete(20, None))
    distribution = default_training_distribution(structure, design.complete(20, None), 0)
    return structure, Simulator(structure, design, distribution, 3)(0, num)


def test_what_is_recorded_is_simulated_and_masks_the_values():
    _, simulation = simulated()
    y, record = simulation.cohort["y"], simulation.cohort["y_recorded"]
    assert torch.equal(y.observed, record.values > 0.5)
    assert record.observed.all()
    high = simulation.unconstrained[:, 0] > 1.5
    assert y.observed[high].double().mean() < 0.25
    assert y.observed[simulation.unconstrained[:, 0] < 0].double().mean() > 0.95


def test_the_density_of_a_missing_value_is_the_share_that_would_be_lost():
    structure, simulation = simulated(40)
    cohort, level = simulation.cohort, simulation.unconstrained
    total = structure.log_density(cohort, level.unsqueeze(0), {}).observation[0]
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for i in range(40):
        distribution = torch.distributions.Normal(level[i], 0.5)
        lost = (distribution.log_prob(grid).exp() * torch.sigmoid(4 * (grid - 1))).sum() * (
            grid[1] - grid[0]
        )
        y, seen = cohort["y"].values[i], cohort["y"].observed[i]
        known = distribution.log_prob(y) + torch.nn.functional.logsigmoid(-4 * (y - 1))
        expected = torch.where(seen, known, lost.log()).sum()
        assert float(total[i]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.slow
def test_ignoring_the_mechanism_is_biased_and_saying_it_is_not(tmp_path):
    guide = pa.train(by_value, DESIGN, num_simulations=8000, options=OPTIONS, progress=False)
    assert guide.training_distribution.individual.prior is not None
    _, simulation = simulated(300)
    posterior = pa.sample_individuals(
        guide.model, simulation.cohort, {}, guide=guide, num_draws=400
    )
    mean, sd, _, _ = posterior.moments()
    z = (mean - simulation.unconstrained) / sd
    guide.save(tmp_path)
    loaded = pa.load_guide(tmp_path, by_value, simulation.cohort)
    assert loaded.training_distribution.individual.prior is loaded.structure
    assert abs(float(z.mean())) < 4 / 300**0.5
    assert float(z.std()) == pytest.approx(1.0, abs=4 / (2 * 300) ** 0.5)
    y = simulation.cohort["y"]
    n, total = y.observed.sum(1), (y.values * y.observed).sum(1)
    naive = total / 0.25 / (n / 0.25 + 1)  # conjugate posterior mean that ignores the mechanism
    naive_sd = (n / 0.25 + 1) ** -0.5
    assert float(((naive - simulation.unconstrained[:, 0]) / naive_sd).mean()) < -0.2


# Distributions without a density.


def poisson_by_numpy(mean):
    generator = numpy.random.default_rng(torch.randint(2**31, ()).item())
    return torch.as_tensor(generator.poisson(mean.numpy()), dtype=mean.dtype)


def counted(cohort):
    """Its random numbers come from elsewhere: one value of `rate` at a time."""
    rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
    with pyro.plate("individual", len(cohort)):
        size = pyro.sample("size", dist.LogNormal(1.0, 0.5))
        y = cohort["y"]
        mean = (rate * size)[..., None].expand(y.values.shape)
        distribution = nlme.Simulated(lambda: poisson_by_numpy(mean), y.values.shape)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


@pytest.mark.slow
def test_a_distribution_without_density_trains_and_refuses_to_be_scored():
    design = Schedule({"y": TIMES}, NumberMissing(0, 2))
    with pytest.warns(pa.AmortizedWarning, match="one value of rate per individual"):
        guide = pa.train(counted, design, num_simulations=3000, options=OPTIONS, progress=False)
    structure = guide.structure
    assert structure.shared == ("rate",)
    assert not structure.observed["y"].has_density
    cohort = design(5, torch.Generator().manual_seed(0))
    population = {"rate": torch.tensor(1.0)}
    torch.manual_seed(0)
    draws = guide.individual_posterior(cohort, population).sample((100,))
    assert draws.isfinite().all()
    with pytest.raises(ModelError, match="no density"):
        pa.sample_individuals(guide.model, cohort, population, guide=guide, estimator="corrected")
    calibration = calibrate(guide, design, num_individuals=100, num_draws=200)
    assert torch.equal(calibration.ranks, calibration.raw_ranks)
    assert calibration.ess.isnan().all()


# Masks.


def masked(how):
    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        y = cohort["y"]
        with pyro.plate("individual", len(cohort), dim=-2):
            slope = pyro.sample("slope", dist.Normal(mean, 1.0))
            with pyro.plate("time", y.times.shape[1], dim=-1):
                distribution = dist.Normal(slope * y.times, 0.3)
                if how == "mask":
                    pyro.sample("y", distribution.mask(y.observed), obs=y.values)
                elif how == "poutine":
                    with pyro.poutine.mask(mask=y.observed):
                        pyro.sample("y", distribution, obs=y.values)
                else:
                    pyro.sample("y", distribution, obs=y.values, obs_mask=y.observed)

    return model


@pytest.mark.slow
def test_masks_of_all_kinds_mean_the_same():
    """`.mask`, `poutine.mask`, `obs_mask=`, NaN in the data: equal densities, draws, guides."""
    cohort = growth_cohort(7, 2)
    y = cohort["y"]
    nan = pa.Series(y.times, torch.where(y.observed, y.values, math.nan))
    frame = nlme.to_table(cohort, "y")
    frame["MDV"] = 0  # the empty DV alone says that nothing was recorded
    table = nlme.read_table(frame, series="y", covariates=["weight"]).to(dtype=torch.float64)
    cohorts = [cohort, pa.Cohort({"y": nan}, covariates=cohort.covariates), table]
    draws = torch.randn(3, 7, 1, generator=torch.Generator().manual_seed(0)).double()
    population = {"mean": torch.tensor(0.2, dtype=torch.float64)}
    densities, simulations, guides = [], [], []
    for how in ("mask", "poutine", "obs_mask"):
        for data in cohorts:
            structure = pa.read_structure(masked(how), data)
            densities.append(structure.log_density(data, draws, population).observation)
            generator = torch.Generator().manual_seed(5)
            made, _ = structure.simulate(data, draws[0], torch.zeros(7, 0), population, generator)
            simulations.append(made["y"].values * made["y"].observed)
        guides.append(
            pa.train(masked(how), cohort, num_simulations=500, options=OPTIONS, progress=False)
        )
    for other in densities[1:]:
        assert torch.allclose(other, densities[0], atol=1e-12)
    for other in simulations[1:]:
        assert torch.equal(other, simulations[0])
    for other in guides[1:]:
        for name, x in guides[0].posterior.state_dict().items():
            assert torch.equal(x, other.posterior.state_dict()[name])


def test_individuals_with_unusual_patterns_are_named():
    design = Schedule({"y": TIMES}, NumberMissing(0, 1))
    guide = pa.train(masked("mask"), design, num_simulations=2000, options=OPTIONS, progress=False)
    population = {"mean": torch.tensor(0.0)}
    cohort = design(5, torch.Generator().manual_seed(0))
    pa.sample_individuals(guide.model, cohort, population, guide=guide, num_draws=100)
    observed = torch.ones(5, 4, dtype=torch.bool)
    observed[2, 1:] = False
    with pytest.warns(pa.AmortizedWarning, match="3: the number of recorded values of 'y'"):
        pa.sample_individuals(
            guide.model,
            cohort.with_observed({"y": observed}),
            population,
            guide=guide,
            num_draws=100,
        )
