"""The interpolated response of each draw to the dose."""

import torch

from pyro_amortized.applications.dose_response import DoseResponse


def test_a_draw_without_a_response_does_not_change_the_others():
    """One concentration that was zero by rounding made other doses up to 15 % too small."""
    log_amounts = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64).log().unsqueeze(1)
    slopes = torch.tensor([[0.5], [0.0], [2.0]], dtype=torch.float64)  # of three draws
    metric = log_amounts.exp().unsqueeze(1) * slopes
    response = DoseResponse(log_amounts, metric)
    dose = torch.tensor([[30.0]], dtype=torch.float64)
    assert torch.allclose(response.at(dose.log())[0], 30.0 * slopes)
    reached = response.reached_at(15.0)
    assert torch.allclose(reached[[0, 2]].exp(), 15.0 / slopes[[0, 2]])
    assert reached[1] == torch.inf
