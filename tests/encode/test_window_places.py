import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.cohort.time_grid import time_windows
from pyro_amortized.encode import Form, Tokens
from pyro_amortized.encode.window_places import in_windows


def test_the_first_value_of_a_window_has_its_place():
    times = torch.tensor([[0.1, 0.2, 5.0, 2.0], [1.5, 9.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, True], [True, False, False, True]])
    tokens = torch.arange(8.0).reshape(2, 4, 1)
    edges = torch.tensor([1.0, 3.0], dtype=torch.float64)
    (placed, is_placed), (others, is_other) = in_windows(times, edges, tokens, mask)
    assert placed[..., 0].tolist() == [[0.0, 3.0, 2.0], [7.0, 4.0, 0.0]]
    assert is_placed.tolist() == [[True, True, True], [True, True, False]]
    assert others[0, is_other[0], 0].tolist() == [1.0]  # the second value before time 1
    assert not is_other[1].any()


def schedule(num=30, jitter=0.1):
    nominal = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0])
    generator = torch.Generator().manual_seed(0)
    times = nominal + jitter * (torch.rand(num, 5, generator=generator) - 0.5)
    values = torch.randn(num, 5, generator=generator)
    observed = torch.rand(num, 5, generator=generator) > 0.3
    return Cohort({"y": Series(times.double(), values.double(), observed)})


def test_windows_of_a_schedule():
    windows = time_windows(schedule(), ["y"])
    assert len(windows["y"]) == 4
    assert all(
        a < e < b for a, e, b in zip((0.5, 1, 2, 4), windows["y"], (1, 2, 4, 8), strict=True)
    )


def test_times_without_a_schedule_have_no_windows():
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(200, 6, generator=generator).sort(1).values
    assert time_windows(Cohort({"y": Series(times, torch.ones(200, 6))}), ["y"]) is None


def test_two_values_at_the_same_time_share_a_window():
    times = torch.tensor([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    windows = time_windows(Cohort({"y": Series(times, torch.ones(2, 3))}), ["y"])
    assert windows == {"y": [1.5, 2.5]}


def test_no_value_is_lost():
    cohort = schedule()
    form = Form.of(cohort, ["y"], None, time_windows(cohort, ["y"]))
    encoder = Tokens().encoder(form).fit(cohort)
    assert encoder.layout.num_places == 5
    encoded = encoder(cohort)
    assert int(encoded.mask.sum()) == int(cohort["y"].observed.sum())
    late = Cohort({"y": Series(torch.tensor([[0.5, 0.6, 0.7, 100.0]]), torch.ones(1, 4))})
    again = encoder(late)
    assert again.mask[0, :5].sum() == 2  # places of 0.5 and of everything after 4
    assert again.mask[0, 5:].sum() == 2
