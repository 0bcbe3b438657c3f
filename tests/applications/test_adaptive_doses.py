import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import AmortizedError

from .kit import STEADY, known


def test_a_rule_sees_the_samples_in_time_order_and_decides_the_next_doses():
    seen = []

    def rule(measured):
        seen.append((measured.time, measured.times.tolist(), measured.values.clone()))
        return torch.where(measured.last < 1.0, 2 * measured.last_amount, measured.last_amount)

    plan = nlme.adaptive(nlme.regimen(50, 12, 5), rule, samples=[12.0, 36.0])
    result = pa.simulate(known(), {"a": plan}, num_individuals=20, times=[60.0], seed=1)
    assert [(time, times) for time, times, _ in seen] == [(12.0, [12.0]), (36.0, [12.0, 36.0])]
    assert torch.equal(seen[1][2][:, 0], seen[0][2][:, 0])  # a sample stays what it was
    amounts = result.amounts["a"][0]
    assert amounts.shape == (20, 5)
    first = torch.where(seen[0][2][:, 0] < 1.0, 100.0, 50.0).double()
    second = torch.where(seen[1][2][:, 1] < 1.0, 2 * first, first)
    assert torch.equal(amounts, torch.stack([0 * first + 50, first, first, second, second], 1))


def test_a_rule_that_repeats_is_the_plan():
    plan = nlme.regimen(50, 12, 4)
    same = nlme.adaptive(plan, lambda measured: measured.last_amount, samples=[20.0])
    options = {"num_individuals": 10, "num_draws": 3, "seed": 1}
    uncertain = known(standard_errors={"typical": [0.2, 1.0, 0.1], "b": 0.01})
    result = pa.simulate(uncertain, {"plan": plan, "rule": same}, **options)
    assert torch.allclose(result.prediction["plan"], result.prediction["rule"])
    assert torch.allclose(result.exposures["auc"]["plan"], result.exposures["auc"]["rule"])
    steady = pa.Exposure(steady_state=True)
    at_end = pa.simulate(uncertain, {"plan": plan, "rule": same}, exposure=steady, **options)
    assert torch.allclose(at_end.exposures["auc"]["plan"], at_end.exposures["auc"]["rule"])


def test_what_a_rule_may_not_measure():
    plan = nlme.adaptive(nlme.regimen(50, 12, 3), lambda m: m.last_amount, samples=[6.0])
    with pytest.raises(AmortizedError, match="is not observed"):
        pa.simulate(known(), plan, quantity="effect", num_individuals=3)


def test_a_rule_cannot_change_what_was_given():
    def rule(measured):
        measured.amounts.mul_(0)
        measured.values.mul_(0)
        return torch.full_like(measured.last, 100.0)

    plan = nlme.adaptive(nlme.regimen(50, 12, 4), rule, samples=[12.0, 24.0])
    result = pa.simulate(known(), {"a": plan}, num_individuals=2, times=[60.0])
    assert result.amounts["a"][0].tolist() == [[50.0, 100.0, 100.0, 100.0]] * 2


def test_a_rule_may_stop_the_doses_of_some_before_a_steady_state():
    """AUC at steady state is that of the last amount / CL, and 0 where the rule stopped."""

    def rule(measured):
        stop = torch.arange(len(measured.values)) % 2 == 0
        return torch.where(stop, 0.0, 200.0).double()

    plan = nlme.adaptive(nlme.regimen(50, 12, 4), rule, samples=[12.0])
    result = pa.simulate(
        known(), {"a": plan}, num_individuals=4, exposure=STEADY, uncertainty="none", times=[60.0]
    )
    assert result.exposures["auc"]["a"][0].tolist() == pytest.approx([0, 50, 0, 50], rel=1e-4)
