from dataclasses import replace
from functools import partial

import pyro
import pytest
import quickstart
import torch
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized.population import amortized_mcmc, estimation
from pyro_amortized.population.posterior import (
    pooled_proposals,
    population_posterior,
    posterior_density,
)
from pyro_amortized.population.results import retraining
from pyro_amortized.population.search import draw_numbers, starting_values
from pyro_amortized.population.search.estimation_settings import ESTIMATION
from pyro_amortized.sampling import minor_modes, refinement_stages
from pyro_amortized.sampling.mode_mixture import mixture_around_modes
from pyro_amortized.training import guide_training

torch.set_num_threads(1)  # threads of several processes on two cores stall each other

from tests.exact import exact_fit, linear_cohort, linear_program
from tests.sharing import common_folder, shared_fit, shared_guide
from tests.small import NETWORKS, capped, unarranged


def pytest_collection_modifyitems(items):
    """Modules with slow tests come first, so that both processes end at about the same time."""
    dear = {"slow", "example", "benchmark"}
    slow = {x.path for x in items if dear & {mark.name for mark in x.iter_markers()}}
    items.sort(key=lambda x: x.path not in slow)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Seed, clear the parameter store; fail a test that leaves a global setting changed."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    before = _settings()
    yield
    left = _settings()
    pyro.clear_param_store()
    assert left == before


def _settings():
    return (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        pyro.distributions.is_validation_enabled(),
        torch.distributions.Distribution._validate_args,
        torch.is_grad_enabled(),
    )


@pytest.fixture
def rough_training_distributions(monkeypatch):
    """Training distributions of 200 draws of the prior, where a training is so small that the
    usual 1,000 would take most of its time.
    """
    rough = partial(guide_training.default_training_distribution, num_draws=200)
    monkeypatch.setattr(guide_training, "default_training_distribution", rough)


@pytest.fixture
def small_populations(monkeypatch):
    """Draws of the population from few draws of the individuals, where any will do."""
    pooled = replace(pooled_proposals.POOLED, min_draws=50, max_total_draws=2000)
    monkeypatch.setattr(pooled_proposals, "POOLED", pooled)
    density = replace(posterior_density.DENSITY, num_test_draws=5, num_pooled=2)
    for module in (posterior_density, population_posterior):
        monkeypatch.setattr(module, "DENSITY", density)


@pytest.fixture
def small_efforts(monkeypatch, rough_training_distributions, small_populations):
    """For a script that only has to run: its searches for modes, too, are short, and its fits have
    few starts, few rounds, few draws where the script leaves their number open, and short further
    trainings. Figures are drawn as they are, without an arrangement of their panels.
    """
    monkeypatch.setattr(minor_modes, "EFFORT", replace(minor_modes.EFFORT, num_starts=6))
    few = {"usual_draws": 100, "min_draws": 50, "max_draws": 100, "precision": 10.0}
    few |= {"max_rounds": 5, "min_result_draws": 50}
    for module in (draw_numbers, estimation):
        monkeypatch.setattr(module, "ESTIMATION", replace(ESTIMATION, **few))
    for name in ("candidates", "locate_population"):
        few_starts = capped(getattr(starting_values, name), "num_starts", 2)
        monkeypatch.setattr(starting_values, name, few_starts)
    few_draws = capped(amortized_mcmc.FitRequest, "num_draws", 100)
    monkeypatch.setattr(amortized_mcmc, "FitRequest", few_draws)
    short = replace(retraining.RETRAINING, num_simulations=2000, num_epochs=2)
    monkeypatch.setattr(retraining, "RETRAINING", short)

    def mixture_of_few_steps(target, modes, generator, num_steps):
        return mixture_around_modes(target, modes, generator, min(num_steps, 10))

    monkeypatch.setattr(refinement_stages, "mixture_around_modes", mixture_of_few_steps)
    monkeypatch.setattr(Figure, "savefig", unarranged(Figure.savefig))


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """The folder of guides and fits that all processes of this run share."""
    return common_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def theophylline_guide(common):
    """A small guide for the model of the quickstart; far from converged, and corrected."""
    return shared_guide(
        common / "theophylline_guide",
        quickstart.model,
        quickstart.cohort,
        num_simulations=20_000,
        seed=1,
        options=pa.TrainingOptions(max_epochs=5, batch_size=256),
        networks=NETWORKS,
    )


@pytest.fixture(scope="session")
def linear():
    """The linear Gaussian cohort of the exact results."""
    return linear_cohort()


@pytest.fixture(scope="session")
def linear_guide(common, linear):
    """A small guide for the linear Gaussian model, trained in seconds."""
    return shared_guide(
        common / "linear_guide",
        linear_program,
        linear,
        num_simulations=30_000,
        seed=1,
        options=pa.TrainingOptions(max_epochs=6, batch_size=256),
        networks=NETWORKS,
    )


@pytest.fixture(scope="session")
def fit(common, linear, linear_guide):
    """The linear Gaussian cohort, fitted."""
    return shared_fit(
        common / "linear_fit", linear_program, linear_guide, linear, num_draws=1000, seed=2
    )


@pytest.fixture(scope="session")
def population_draws(fit):
    """Draws from the posterior of the population about the fit."""
    return pa.sample_population(fit, num_draws=200, num_proposals=400, seed=1)


@pytest.fixture(scope="session")
def small_fit(common, linear, linear_guide):
    """A fit of half of its individuals with few draws, where any fit will do."""
    return shared_fit(
        common / "small_fit", linear_program, linear_guide, linear[:20], num_draws=200, seed=2
    )


@pytest.fixture(scope="session")
def exact(linear):
    """Its exact maximum of the likelihood."""
    return exact_fit(linear)
