import torch

from pyro_amortized.encode.standardization import DEFAULTS, Standardize


def test_mean_0_and_standard_deviation_1_and_constant_features_0():
    rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.cat([3 * rows + 5, torch.full((500, 1), 0.1, dtype=torch.float64)], 1)
    scales = Standardize(3)
    scales.fit(rows)
    scaled = scales(rows)
    assert torch.allclose(scaled.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(scaled[:, :2].std(0, correction=0), torch.ones(2, dtype=torch.float64))
    assert (scaled[:, 2] == 0).all()
    assert float(scales(rows * 1e6).abs().max()) == DEFAULTS.largest_value


def test_columns_are_fitted_apart():
    scales = Standardize(3)
    scales.fit_columns(1, torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64))
    assert scales.mean.tolist() == [0.0, 2.0, 2.0]
    assert scales.scale.tolist() == [1.0, 1.0, 0.5]
