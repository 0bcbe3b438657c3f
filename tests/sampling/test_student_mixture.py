import pytest
import torch

from pyro_amortized.sampling.student_mixture import StudentMixture, fit_student_mixture


def test_mixture_density_integrates_to_one():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(500, 3, 2, generator=generator, dtype=torch.float64)
    draws[250:] += 6.0
    weights = torch.full((500, 3), 1 / 500, dtype=torch.float64)
    mixture = fit_student_mixture(draws, weights, 2, generator)
    sample = mixture.draw(20_000, generator)
    wide = torch.distributions.StudentT(5.0, torch.tensor(3.0).double(), 4.0)
    points = wide.sample((40_000, 3, 2))
    ratio = (mixture.log_prob(points) - wide.log_prob(points).sum(-1)).exp()
    error = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()
    assert torch.allclose(sample.mean(0), torch.tensor(3.0).double(), atol=0.2)


@pytest.mark.parametrize("sd", [0.1, 10.0])
def test_stretched_mixtures_are_wider_along_one_axis_only(sd):
    tril = torch.diag(torch.tensor([1.0, 0.1, 0.1])).double()
    one = StudentMixture(
        torch.zeros(1, 1).double(), torch.zeros(1, 1, 3).double(), tril[None, None]
    )
    scale = one.stretched(torch.full((1, 3), sd).double()).scale_trils[0, 0]
    wide = (scale @ scale.T).diagonal().sqrt()
    assert torch.allclose(wide[1:], torch.tensor([0.1, 0.1]).double())
    expected = {0.1: 1.0, 10.0: (1 + (16 - 1)) ** 0.5}[sd]
    assert float(wide[0]) == pytest.approx(expected)
