"""Every wrong input ends in an error of three parts (the table in
``tests/bad_inputs``): never in a traceback from inside torch, a hang, or a plausible number.
"""

import signal
import warnings

import pytest

import pyro_amortized as pa
from tests.bad_inputs import ERRORS, FINE, WARNED
from tests.bad_inputs.kit import Kit

pytestmark = pytest.mark.usefixtures("rough_training_distributions")

PATIENCE = 300  # seconds; a busy machine is slow, and no hang ends after five minutes


@pytest.fixture
def kit(linear, linear_guide, fit, tmp_path):
    return Kit(linear, linear_guide, fit, tmp_path)


@pytest.fixture(autouse=True)
def no_hang(kit):
    """An entry that hangs fails; the clock starts when the guides are trained."""

    def stop(*_):
        raise TimeoutError(f"longer than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.bad_input
@pytest.mark.parametrize("label", ERRORS)
def test_bad_input_is_told_in_three_parts(label, kit):
    attempt, fragment = ERRORS[label]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        with pytest.raises(pa.AmortizedError) as caught:
            attempt(kit)
    error = caught.value
    assert fragment in str(error), str(error)
    for part in (error.found, error.expected, error.fix):
        assert len(part) > 3, str(error)
    assert error.found[0].isupper() or not error.found[0].isalpha()
    assert error.found.rstrip()[-1] in ".!?)", error.found


@pytest.mark.bad_input
@pytest.mark.parametrize("label", WARNED)
def test_odd_individuals_are_named(label, kit):
    attempt, who = WARNED[label]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        reasons = attempt(kit)
    assert reasons.get(who), reasons
    assert len(reasons) <= 6, reasons  # not everybody


@pytest.mark.parametrize("label", FINE)
def test_the_unusual_is_computed(label, kit):
    likelihood = FINE[label](kit)
    assert likelihood.log_likelihood.isfinite().all()
    assert likelihood.mc_error.isfinite().all()


def test_the_table_is_long():
    assert len(ERRORS) >= 150
