"""Errors of two series that go together are found; independent ones pass."""

from types import SimpleNamespace

import pytest
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics.measurements.series_errors import series_error_checks

NUM, VISITS = 40, 5
TIMES = torch.arange(VISITS).double().expand(NUM, -1)


def check_of(correlation, seed=1):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, NUM * VISITS, generator=generator).double()
    second = correlation * first + (1 - correlation**2) ** 0.5 * second
    cohort = Cohort({n: Series(TIMES, torch.zeros(NUM, VISITS).double()) for n in ("a", "b")})
    ids = tuple(i for i in cohort.ids for _ in range(VISITS))
    both = [
        SimpleNamespace(
            series=name,
            ids=ids,
            times=TIMES.flatten(),
            drawn_iwres=x.unsqueeze(0),
            has_scores=True,
            kind="continuous",
        )
        for name, x in (("a", first), ("b", second))
    ]
    scores = torch.randn(NUM, 2, generator=generator).double().numpy()
    return series_error_checks(both, cohort, scores)


def test_a_correlation_is_named():
    (check,) = check_of(0.6)
    assert check.status == "failed"
    assert "errors of a and b at the same times go together (correlation +0." in check.words


@pytest.mark.parametrize("seed", range(5))
def test_independent_errors_pass(seed):
    (check,) = check_of(0.0, seed)
    assert check.status == "passed"
