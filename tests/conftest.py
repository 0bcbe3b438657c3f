import pyro
import pytest
import quickstart
import torch

import pyro_amortized as pa

torch.set_num_threads(1)  # threads of several processes on two cores stall each other

from tests.exact import exact_fit, linear_cohort, linear_program
from tests.sharing import common_folder, shared_fit, shared_guide


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
        num_simulations=30_000,
        seed=1,
        options=pa.TrainingOptions(max_epochs=5),
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
    )


@pytest.fixture(scope="session")
def fit(common, linear, linear_guide):
    """The linear Gaussian cohort, fitted."""
    return shared_fit(
        common / "linear_fit", linear_program, linear_guide, linear, num_draws=1000, seed=2
    )


@pytest.fixture(scope="session")
def exact(linear):
    """Its exact maximum of the likelihood."""
    return exact_fit(linear)
