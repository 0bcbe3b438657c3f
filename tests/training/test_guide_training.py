import json
import subprocess
import sys
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Importance, Predictive, RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoGuideList, AutoNormal
from pyro.infer.importance import vectorized_importance_weights

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedWarning, GuideError, ModelError, TrainingError
from pyro_amortized.guide.training_distributions import default_training_distribution
from pyro_amortized.runtime.random_numbers import make_generator
from pyro_amortized.training.simulation.shard_simulation import simulate_training_set
from tests.exact import TRUTH, exact_posterior, linear_program
from tests.paths import ROOT
from tests.programs import STYLES, growth_cohort

SMALL = pa.TrainingOptions(max_epochs=2, batch_size=256)


def small_train(program, cohort, seed=1, num_simulations=2000):
    return pa.train(
        program, cohort, num_simulations=num_simulations, seed=seed, options=SMALL, progress=False
    )


# Simulation.


def test_training_distribution_has_the_moments_of_the_prior_predictive(linear):
    structure = pa.read_structure(linear_program, linear)
    training = default_training_distribution(structure, linear, 0, inflation=1.0, num_draws=2000)
    found = training.individual.normal
    assert torch.allclose(found.loc, torch.tensor([0.5, 0.5]).double(), atol=0.08)
    sd = (found.scale_tril @ found.scale_tril.T).diagonal().sqrt()
    assert torch.allclose(sd, torch.full((2,), 2.0**0.5).double(), rtol=0.1)
    assert torch.allclose(training.shared.draws.mean(), torch.tensor(-1.0).double(), atol=0.05)
    x = torch.randn(5, 2, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(found.loc, scale_tril=found.scale_tril)
    assert torch.allclose(found.log_prob(x), law.log_prob(x))


def test_training_set_is_reproducible_and_depends_on_the_seed(linear):
    structure = pa.read_structure(linear_program, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=200)
    sets = [
        simulate_training_set(structure, pa.Resample(linear), distribution, 500, seed=s)
        for s in (1, 1, 2)
    ]
    assert torch.equal(sets[0].cohort["y"].values, sets[1].cohort["y"].values)
    assert not torch.equal(sets[0].cohort["y"].values, sets[2].cohort["y"].values)
    assert len(sets[0]) == 500


def test_failed_simulations_are_counted_and_announced(linear):
    def fragile(cohort):
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
            y = cohort["y"]
            prediction = (slope + 1.0).sqrt()[..., None] * y.times  # NaN below -1
            law = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", law, obs=y.values)

    structure = pa.read_structure(fragile, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=200)
    with pytest.warns(AmortizedWarning, match="not finite"):
        found = simulate_training_set(structure, pa.Resample(linear), distribution, 2000, seed=1)
    share = torch.distributions.Normal(0.0, 1.0).cdf(
        (-1 - distribution.individual.normal.loc) / distribution.individual.normal.scale_tril[0, 0]
    )
    assert found.num_failed / 2000 == pytest.approx(float(share), abs=0.03)
    assert len(found) == 2000 - found.num_failed


def test_simulations_beyond_single_precision_have_failed(linear):
    def explosive(cohort):
        with pyro.plate("individual", len(cohort)):
            rate = pyro.sample("rate", dist.Normal(0.0, 80.0))
            y = cohort["y"]
            law = dist.Normal(torch.exp(rate[..., None] + 0 * y.times), 1.0)
            pyro.sample("y", law.mask(y.observed).to_event(1), obs=y.values)

    options = pa.TrainingOptions(max_epochs=1)
    with pytest.warns(AmortizedWarning, match="not finite"):
        guide = pa.train(explosive, linear, num_simulations=500, options=options, progress=False)
    assert guide.history.num_failed > 0


def test_loop_simulation_says_what_to_change():
    with pytest.warns(AmortizedWarning, match=r"\[\.\.\., None\]"):
        small_train(STYLES["indexed"], growth_cohort(6), num_simulations=500)


# Training.


def test_guide_is_a_real_autoguide_with_a_history(linear_guide):
    assert isinstance(linear_guide, AutoGuide)
    history = linear_guide.history
    assert len(history.training_loss) == len(history.validation_loss) == 12
    assert history.validation_loss[history.best_epoch] == min(history.validation_loss)
    assert history.validation_loss[-1] < history.validation_loss[0]
    assert history.num_simulations == 30_000
    assert history.num_failed == 0


def test_raw_guide_is_near_the_exact_posterior(linear, linear_guide):
    """Under the training distribution as prior the posterior is Gaussian and known."""
    training = linear_guide.training_distribution.individual.normal
    population = {
        "mean": training.loc,
        "omega": (training.scale_tril @ training.scale_tril.T).diagonal().sqrt(),
        "sigma": TRUTH["sigma"],
    }
    mean, covariance = exact_posterior(linear, population)
    draws = linear_guide.individual_posterior(linear, TRUTH).sample((4000,))
    sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((draws.mean(0) - mean).abs() / sd).mean() < 0.3
    assert (draws.std(0) / sd).log().abs().mean() < 0.25


def test_same_seed_same_weights_other_seed_others(linear):
    one, two, three = (small_train(linear_program, linear, seed=s) for s in (1, 1, 2))
    first, second, third = (g.posterior.state_dict() for g in (one, two, three))
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not all(torch.equal(first[n], third[n]) for n in first)


def test_training_leaves_global_state_alone(linear):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    pyro.param("mine", torch.ones(1))
    small_train(linear_program, linear, num_simulations=300)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert list(pyro.get_param_store().keys()) == ["mine"]


def test_early_stopping_keeps_the_best_weights(linear):
    """A few simulations without fresh missingness are soon learned by heart."""
    options = pa.TrainingOptions(max_epochs=200, batch_size=64, patience=3, learning_rate=0.02)
    few = pa.Resample(linear, pa.RandomMissing(0.0, 0.0))
    guide = pa.train(
        linear_program, few, num_simulations=400, seed=1, options=options, progress=False
    )
    history = guide.history
    assert len(history.validation_loss) < 20
    assert "no better validation loss" in history.stopped
    losses = history.validation_loss
    assert losses[history.best_epoch] == min(losses)
    design, generator = few, make_generator(0)
    structure, training = guide.structure, guide.training_distribution
    latent = training.individual.normal.draw(500, generator)
    shared = training.shared.draw(500, generator)
    fresh, _ = structure.simulate(
        design(500, generator), latent, shared, structure.initial_population(), generator
    )
    found = -guide.posterior.condition(fresh, shared).log_prob(latent).mean()
    assert found == pytest.approx(min(losses), abs=0.5)  # the best weights, not the last


def test_a_design_of_ones_own(linear):
    def design(num, generator):
        times = torch.rand(num, 3, generator=generator, dtype=torch.float64).sort(1).values
        return pa.Cohort({"y": pa.Series(times, torch.ones(num, 3, dtype=torch.float64))})

    guide = small_train(linear_program, design)
    assert guide.individual_posterior(linear, TRUTH).sample().shape == (40, 2)


@pytest.mark.parametrize("name", ["plate_time", "parameters", "several_supports", "non_centred"])
def test_every_style_trains_scores_and_guides(name):
    cohort = growth_cohort(5)
    guide = small_train(STYLES[name], cohort)
    population = guide.structure.draw_populations(cohort, 1, make_generator(5))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmortizedWarning)
        found = pa.sample_individuals(guide, cohort, population=population, num_draws=200)
    assert found.estimate.log_mean.isfinite().all()
    svi = SVI(STYLES[name], guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert torch.tensor([svi.step(cohort) for _ in range(3)]).isfinite().all()
    trace = pyro.poutine.trace(guide).get_trace(cohort)
    replayed = pyro.poutine.trace(pyro.poutine.replay(STYLES[name], trace)).get_trace(cohort)
    for site in guide.structure.individual:
        assert replayed.nodes[site]["value"].shape == trace.nodes[site]["value"].shape
        assert replayed.nodes[site]["fn"].support.check(trace.nodes[site]["value"]).all()


def test_bad_requests(linear):
    with pytest.raises(TrainingError, match="num_simulations"):
        pa.train(linear_program, linear, num_simulations=10, progress=False)
    with pytest.raises(TrainingError, match="validation_share"):
        pa.TrainingOptions(validation_share=1.5)
    with pytest.raises(TrainingError, match="shapes"):
        pa.TrainingDistribution.normal(torch.zeros(2), torch.eye(3), torch.zeros(5, 1))
    with pytest.raises(TrainingError, match="shared parameters have shape"):
        pa.TrainingDistribution.normal(torch.zeros(2), torch.eye(2), torch.zeros(5))
    with pytest.raises(TrainingError, match="`individual` is a Tensor"):
        pa.TrainingDistribution(torch.zeros(2), torch.eye(2))
    with pytest.raises(ModelError, match="no plate"):
        pa.train(lambda cohort: None, linear, progress=False)


# The guide in Pyro.


def test_swaps_in_for_svi_importance_and_predictive(linear, linear_guide):
    for loss in (
        Trace_ELBO(),
        Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        RenyiELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    ):
        pyro.clear_param_store()
        svi = SVI(linear_program, linear_guide, pyro.optim.Adam({"lr": 0.02}), loss)
        losses = [svi.step(linear) for _ in range(5)]
        assert all(torch.tensor(losses).isfinite())
        assert set(pyro.get_param_store().keys()) == {
            "AmortizedGuide.loc",
            "AmortizedGuide.scale_tril",
        }
    pyro.clear_param_store()
    posterior = Importance(linear_program, linear_guide, 10).run(linear)
    assert len(posterior.log_weights) == 10
    predictive = Predictive(linear_program, guide=linear_guide, num_samples=7)(linear)
    assert predictive["phi"].shape == (7, 40, 2)
    assert predictive["y"].shape == (7, 40, 8)
    weights, _, _ = vectorized_importance_weights(
        linear_program, linear_guide, linear, num_samples=5, max_plate_nesting=1
    )
    assert weights.shape == (5,)


def test_same_program_runs_without_the_guide(linear):
    svi = SVI(
        linear_program, AutoNormal(linear_program), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO()
    )
    assert torch.tensor(svi.step(linear)).isfinite()


def test_guide_stands_alone(linear, linear_guide):
    parts = AutoGuideList(linear_program)
    hidden = pyro.poutine.block(linear_program, hide=["phi"])
    parts.append(AutoNormal(hidden))
    other = linear_guide.at(linear_guide.loc, linear_guide.scale_tril)
    parts.append(other)
    with pytest.raises(GuideError, match="AutoGuideList"):
        parts(linear)


def test_guide_follows_the_size_of_its_cohort(linear, linear_guide):
    assert linear_guide(linear)["phi"].shape == (40, 2)
    assert linear_guide(linear[:3])["phi"].shape == (3, 2)
    assert linear_guide.median(linear[:3])["phi"].shape == (3, 2)


def test_guides_density_in_pyro_is_the_proposals(linear, linear_guide):
    """Sum of the guide's log densities in the plate = log q in the support."""
    trace = pyro.poutine.trace(linear_guide).get_trace(linear)
    trace.compute_log_prob()
    plate = trace.nodes["_individual_latent"]["log_prob_sum"] + trace.nodes["phi"]["log_prob_sum"]
    population = {n: trace.nodes[n]["value"] for n in ("mean", "omega", "sigma")}
    law = linear_guide.individual_posterior(linear, population)
    assert torch.allclose(plate, law.log_prob(trace.nodes["phi"]["value"]).sum())


def test_individuals_from_any_pyro_guide(linear, linear_guide):
    """A plain function, and the amortized guide called through Pyro, as proposals."""

    def plain(cohort):
        with pyro.plate("individual", len(cohort)):
            pyro.sample("phi", dist.Normal(torch.tensor([1.0, 0.5]), 1.0).to_event(1))

    mean, _ = exact_posterior(linear, TRUTH)
    for guide in (plain, lambda cohort: linear_guide(cohort)):
        found = pa.sample_individuals(
            guide, linear, population=TRUTH, num_draws=1000, structure=linear_guide.structure
        )
        moments = found.moments()
        z = (moments[0] - mean) / moments[2]
        assert z.abs().max() < 4.5
    with pytest.raises(GuideError, match="structure"):
        pa.sample_individuals(plain, linear, population=TRUTH)

    def lacking(cohort):
        pyro.sample("other", dist.Normal(0.0, 1.0))

    with pytest.raises(GuideError, match="does not sample"):
        pa.sample_individuals(lacking, linear, population=TRUTH, structure=linear_guide.structure)


# Files.


def test_saved_guide_draws_the_same_in_a_new_process(linear, linear_guide, tmp_path):
    linear_guide.save(tmp_path / "guide")
    names = {p.name for p in (tmp_path / "guide").iterdir()}
    assert names == {"weights.safetensors", "guide.json"}
    code = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "import pyro_amortized as pa\n"
        "from tests.exact import TRUTH, linear_cohort, linear_program\n"
        "cohort = linear_cohort()\n"
        f"guide = pa.load_guide({str(tmp_path / 'guide')!r}, linear_program, cohort)\n"
        "found = pa.sample_individuals(guide, cohort, population=TRUTH, num_draws=50, seed=3)\n"
        "print(json.dumps(found.unconstrained.flatten().tolist()))\n"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root
    )
    here = pa.sample_individuals(linear_guide, linear, population=TRUTH, num_draws=50, seed=3)
    there = torch.tensor(json.loads(done.stdout.splitlines()[-1]), dtype=torch.float64)
    assert torch.allclose(here.unconstrained.flatten(), there, rtol=1e-12, atol=1e-12)


def test_loading_refuses_what_does_not_fit(linear, linear_guide, tmp_path):
    with pytest.raises(GuideError, match="holds no"):
        pa.load_guide(tmp_path, linear_program, linear)
    linear_guide.save(tmp_path)
    with pytest.raises(GuideError, match="individual sites"):
        pa.load_guide(tmp_path, STYLES["several_supports"], growth_cohort(4))
    description = json.loads((tmp_path / "guide.json").read_text("utf-8"))
    description["format_version"] = 99
    (tmp_path / "guide.json").write_text(json.dumps(description), "utf-8")
    with pytest.raises(GuideError, match="format version 99"):
        pa.load_guide(tmp_path, linear_program, linear)
