import warnings

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGuide

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedWarning, ModelError, TrainingError
from pyro_amortized.runtime.random_numbers import make_generator
from tests.exact import TRUTH, exact_posterior, linear_program
from tests.programs import STYLES, growth_cohort

pytestmark = pytest.mark.usefixtures("rough_training_distributions")

SMALL = pa.TrainingOptions(max_epochs=2, batch_size=256)


def small_train(program, cohort, seed=1, num_simulations=2000):
    return pa.train(
        program, cohort, num_simulations=num_simulations, seed=seed, options=SMALL, progress=False
    )


def test_loop_simulation_says_what_to_change():
    with pytest.warns(AmortizedWarning, match=r"\[\.\.\., None\]"):
        small_train(STYLES["indexed"], growth_cohort(6), num_simulations=500)


def test_guide_is_a_real_autoguide_with_a_history(linear_guide):
    assert isinstance(linear_guide, AutoGuide)
    history = linear_guide.history
    assert len(history.training_loss) == len(history.validation_loss) == 20
    assert history.validation_loss[history.best_check] == min(history.validation_loss)
    assert history.validation_loss[-1] < history.validation_loss[0]
    assert history.num_simulations == 30_000
    assert history.num_failed == 0


def test_raw_guide_is_near_the_exact_posterior(linear, linear_guide):
    """Under any population the posterior is Gaussian and known."""
    others = (
        TRUTH,
        TRUTH | {"omega": 0.1 * TRUTH["omega"]},
        TRUTH | {"mean": TRUTH["mean"] + 0.5, "omega": 1.5 * TRUTH["omega"]},
    )
    for population in others:
        mean, covariance = exact_posterior(linear, population)
        draws = linear_guide.individual_posterior(linear, population).sample((4000,))
        sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        assert ((draws.mean(0) - mean).abs() / sd).mean() < 0.3
        assert (draws.std(0) / sd).log().abs().mean() < 0.25


@pytest.mark.slow
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


@pytest.mark.slow
def test_early_stopping_keeps_the_best_weights(linear):
    """A network soon overfits a few simulations without new missingness."""
    options = pa.TrainingOptions(max_epochs=100, batch_size=64, patience=3, learning_rate=0.02)
    few = pa.Resample(linear, pa.RandomMissing(0.0, 0.0))
    guide = pa.train(
        linear_program, few, num_simulations=400, seed=1, options=options, progress=False
    )
    history = guide.history
    assert len(history.validation_loss) < 20
    assert "no better validation loss" in history.stopped
    losses = history.validation_loss
    assert losses[history.best_check] == min(losses)
    design, generator = few, make_generator(0)
    structure, training = guide.structure, guide.training_distribution
    priors = training.individual.gaussians(500, generator)
    latent = priors.draw(1, generator)[0]
    shared = training.shared.draw(500, generator)
    fresh, _ = structure.simulate(
        design(500, generator), latent, shared, structure.initial_population(), generator
    )
    loss = -guide.posterior.condition(fresh, shared, priors).log_prob(latent).mean()
    assert loss == pytest.approx(min(losses), abs=0.5)  # the best weights, not the last


def test_a_design_of_ones_own(linear):
    def design(num, generator):
        times = torch.rand(num, 3, generator=generator, dtype=torch.float64).sort(1).values
        return pa.Cohort({"y": pa.Series(times, torch.ones(num, 3, dtype=torch.float64))})

    guide = small_train(linear_program, design)
    assert guide.individual_posterior(linear, TRUTH).sample().shape == (40, 2)


@pytest.mark.parametrize(
    "name",
    [
        "plate_time",
        "parameters",
        pytest.param("several_supports", marks=pytest.mark.slow),
        "non_centred",
    ],
)
def test_every_style_trains_scores_and_guides(name):
    cohort = growth_cohort(5)
    guide = small_train(STYLES[name], cohort)
    population = guide.structure.draw_populations(cohort, 1, make_generator(5))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmortizedWarning)
        individuals = pa.sample_individuals(
            guide.model, cohort, population, guide=guide, num_draws=200
        )
    assert individuals.estimate.log_mean.isfinite().all()
    svi = SVI(STYLES[name], guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert torch.tensor([svi.step(cohort) for _ in range(3)]).isfinite().all()
    trace = pyro.poutine.trace(guide).get_trace(cohort)
    replayed = pyro.poutine.trace(pyro.poutine.replay(STYLES[name], trace)).get_trace(cohort)
    for site in guide.structure.individual:
        assert replayed.nodes[site]["value"].shape == trace.nodes[site]["value"].shape
        assert replayed.nodes[site]["fn"].support.check(trace.nodes[site]["value"]).all()


@pytest.mark.slow
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
