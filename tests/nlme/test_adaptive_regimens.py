import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import SettingError
from pyro_amortized.nlme.adaptive_regimens import decided_amounts, measured_so_far

PLAN = nlme.regimen(100, 12, 4)


def double(measured):
    return 2 * measured.last_amount


def test_what_a_rule_sees():
    regimen = nlme.adaptive(PLAN, double, samples=[6.0, 24.0])
    values, amounts = torch.tensor([[3.0], [4.0]]), torch.tensor([[100.0], [50.0]])
    known = measured_so_far(regimen, 12.0, values, amounts, {})
    assert known.times.tolist() == [6.0]
    assert known.dose_times.tolist() == [0.0]
    assert known.last.tolist() == [3.0, 4.0]
    assert decided_amounts(double, known).tolist() == [200.0, 100.0]


@pytest.mark.parametrize(
    "result", [torch.tensor([1.0]), torch.tensor([-1.0, 1.0]), torch.tensor([torch.nan, 1.0]), 3.0]
)
def test_a_rule_gives_one_amount_per_individual(result):
    regimen = nlme.adaptive(PLAN, double, samples=[6.0])
    known = measured_so_far(regimen, 12.0, torch.ones(2, 1), torch.ones(2, 1), {})
    with pytest.raises(SettingError, match="at time 12"):
        decided_amounts(lambda measured: result, known)


def test_what_is_no_adaptive_regimen():
    for samples in ([], [3.0, 2.0], [40.0]):
        with pytest.raises(SettingError, match="`samples` is"):
            nlme.adaptive(PLAN, double, samples=samples)
    with pytest.raises(SettingError, match="steady state"):
        nlme.adaptive(nlme.regimen(1, 12, 2, steady_state=True), double, samples=[6.0])
    with pytest.raises(SettingError, match="`rule`"):
        nlme.adaptive(PLAN, 3, samples=[6.0])
