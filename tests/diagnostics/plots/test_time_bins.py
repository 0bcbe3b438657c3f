"""Bins of time that follow the planned times of the data."""

import numpy as np

from pyro_amortized.diagnostics.plots.time_bins import equal_bins, natural_bins

PLANNED = np.array([0.5, 1, 2, 4, 8, 11.9, 72.5, 73, 76, 83.9])


def counts(times, edges):
    return np.bincount(np.digitize(times, edges), minlength=len(edges) + 1)


def test_each_planned_time_is_a_bin():
    times = np.repeat(PLANNED, 20)
    assert counts(times, natural_bins(times, 20)).tolist() == [20] * 10


def test_times_around_planned_ones_share_a_bin():
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (20, 10))
    times = (PLANNED + noise).ravel()
    edges = natural_bins(times, 20)
    assert counts(times, edges).tolist() == [20] * 10
    assert all(np.abs(PLANNED[:, None] - edges).min(0) > 0.1)


def test_two_times_that_are_nearly_one():
    times = np.repeat([0.5, 1, 2, 4, 8, 11.9, 12.0], 20)
    assert counts(times, natural_bins(times, 20)).tolist() == [20] * 5 + [40]


def test_random_times_have_bins_of_enough_values():
    times = np.random.default_rng(2).uniform(0, 24, 400)
    numbers = counts(times, natural_bins(times, 40))
    assert 8 <= len(numbers) <= 25
    assert numbers[:-1].min() >= 16


def test_a_planned_time_after_two_doses_is_one_bin():
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (20, 4, 2))
    times = np.array([0.5, 3.0, 6.0, 24.0])[:, None] + noise
    courses = np.broadcast_to(np.arange(40).reshape(20, 1, 2), times.shape)
    edges = natural_bins(times.ravel(), 20, courses.ravel())
    assert counts(times.ravel(), edges).tolist() == [40] * 4


def test_many_values_of_one_course_are_divided_beside_a_long_gap():
    early = np.random.default_rng(1).uniform(0, 2, (20, 10))
    times = np.concatenate([early, np.full((20, 1), 100.0)], 1)
    courses = np.broadcast_to(np.arange(20)[:, None], times.shape)
    numbers = counts(times.ravel(), natural_bins(times.ravel(), 20, courses.ravel()))
    assert numbers[-1] == 20
    assert len(numbers) == 11


def test_sparse_windows_are_divided():
    spread = np.random.default_rng(1).uniform(0, 8, (30, 6))
    spread[:, 3:] += 18  # a second window; each value belongs to a dose of its own
    courses = np.arange(180).reshape(30, 6)
    numbers = counts(spread.ravel(), natural_bins(spread.ravel(), 30, courses.ravel()))
    assert len(numbers) == 6


def test_equal_bins():
    times = np.random.default_rng(3).uniform(0, 24, 400)
    assert counts(times, equal_bins(times, 4)).tolist() == [100] * 4
    assert len(equal_bins(np.zeros(5), 4)) == 0
    assert len(natural_bins(np.zeros(5), 5)) == 0
