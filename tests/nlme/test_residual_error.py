"""Residual error models: against SciPy and by hand."""

import pytest
import scipy.stats
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from tests.nlme.kit import f64


def test_combined_errors_of_both_kinds():
    f = f64(0.0, 3.0)
    assert nlme.combined_error(f, f64(4.0), f64(1.0)).scale.tolist() == [4.0, 5.0]
    assert nlme.combined_error(f, f64(4.0), f64(1.0), kind=1).scale.tolist() == [4.0, 7.0]
    with pytest.raises(ModelError, match="kind=3"):
        nlme.combined_error(f, f64(4.0), f64(1.0), kind=3)


def test_residual_errors():
    f = torch.tensor([0.0, 3.0])
    assert nlme.combined_error(f, torch.tensor(4.0), torch.tensor(1.0)).scale.tolist() == [4.0, 5.0]
    assert nlme.additive_error(f, torch.tensor(2.0)).scale.tolist() == [2.0, 2.0]
    assert nlme.proportional_error(f, torch.tensor(0.5)).scale.tolist() == pytest.approx(
        [1e-6, 1.5]
    )


def test_lognormal_and_student_errors():
    f = f64(2.0, 5.0)
    error = nlme.lognormal_error(f, f64(0.3))
    exact = scipy.stats.lognorm.logpdf([2.5, 4.0], 0.3, scale=[2.0, 5.0])
    assert error.log_prob(f64(2.5, 4.0)).tolist() == pytest.approx(exact.tolist())
    error = nlme.student_error(f, f64(0.5), 4.0)
    exact = scipy.stats.t.logpdf([2.5, 4.0], 4, [2.0, 5.0], 0.5)
    assert error.log_prob(f64(2.5, 4.0)).tolist() == pytest.approx(exact.tolist())
