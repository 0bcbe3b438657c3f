r"""The advice of a training."""

import pytest

import pyro_amortized as pa
from pyro_amortized.missing import RandomMissing
from tests.small import train


@pytest.mark.slow
def test_advice_tells_what_is_lacking(linear):
    options = pa.TrainingOptions(max_epochs=40, batch_size=64, patience=1000, learning_rate=0.02)
    few = pa.Resample(linear, RandomMissing(0.0, 0.0))  # nothing fresh on a new pass
    guide = train(few, num_simulations=400, options=options)
    assert "simulations limit" in guide.history.advice
    options = pa.TrainingOptions(max_epochs=4, batch_size=64)
    short = train(linear, num_simulations=3000, options=options)
    assert "time limits" in short.history.advice


def test_few_checks_of_the_loss_are_named_as_such(linear):
    history = train(linear).history
    assert len(history.validation_loss) == 2  # one for each pass
    assert "the loss was checked only 2 times" in history.advice
    assert "inf" not in history.advice
