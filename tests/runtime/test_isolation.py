import pyro
import pytest
import torch

from pyro_amortized.errors import AmortizedError, CohortError, FitError, GuideError, ModelError
from pyro_amortized.runtime.isolation import double_precision, foreign_program, seeded


def test_everything_is_put_back_also_after_an_error():
    pyro.param("mine", torch.ones(2))
    state = torch.get_rng_state()

    def fail():
        with foreign_program(), seeded(1), double_precision():
            assert torch.get_default_dtype() == torch.float64
            assert not pyro.distributions.is_validation_enabled()
            pyro.param("theirs", torch.ones(3))
            torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert pyro.distributions.is_validation_enabled()


def test_programs_inside_are_hidden_from_handlers_outside():
    with pyro.poutine.trace() as outer, foreign_program():
        pyro.sample("x", pyro.distributions.Normal(0.0, 1.0))
    assert "x" not in outer.trace


@pytest.mark.parametrize("kind", [CohortError, FitError, GuideError, ModelError])
def test_errors_have_three_parts(kind):
    error = kind("Found this.", "that.", "do so.")
    assert isinstance(error, AmortizedError)
    assert isinstance(error, ValueError)
    assert str(error) == "Found this.\nExpected: that.\nTo fix: do so."
    assert (error.found, error.expected, error.fix) == ("Found this.", "that.", "do so.")
