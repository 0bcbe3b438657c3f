"""The order of values: moments over all orders, and series that stay."""

import itertools

import numpy as np
import pytest

from pyro_amortized.diagnostics.measurements.value_order import order_moments, order_p_value

NUM, WIDTH = 60, 8


@pytest.mark.parametrize(
    "values", [(-1.0, 0.0, 3.0), (0.0, 1.0, 1.0, 0.0, 1.0), (1, 2, 5, 2, 2, 0)]
)
def test_moments_are_those_of_all_orders(values):
    x = np.array(values) - np.mean(values)
    sums = [np.dot(p[1:], p[:-1]) for p in map(np.array, itertools.permutations(x))]
    np.testing.assert_allclose(order_moments(x), (np.mean(sums), np.mean(np.square(sums))))


def yes_no(generator, stays=0.0):
    p = 1 / (1 + np.exp(-generator.standard_normal((NUM, 1))))
    values = (generator.random((NUM, WIDTH)) < p).astype(float)
    for j in range(1, WIDTH):
        same = generator.random(NUM) < stays
        values[same, j] = values[same, j - 1]
    return values


def p_value_of(values):
    rows = np.repeat(np.arange(len(values)), values.shape[1])
    predicted = np.tile(np.linspace(0.2, 0.8, len(values)).repeat(values.shape[1]), (3, 1))
    return order_p_value(rows, values.reshape(-1), predicted)


def test_values_of_the_right_model_have_uniform_p_values():
    generator = np.random.default_rng(1)
    p_values = np.array([p_value_of(yes_no(generator)) for _ in range(200)])
    for level in (0.05, 0.2, 0.5):
        error = (level * (1 - level) / len(p_values)) ** 0.5
        assert abs((p_values < level).mean() - level) < 3.5 * error


def test_values_that_stay_are_found():
    assert p_value_of(yes_no(np.random.default_rng(2), stays=0.5)) < 1e-6


def test_no_test_where_expectations_change_or_nothing_differs():
    values = yes_no(np.random.default_rng(3))
    rows = np.repeat(np.arange(NUM), WIDTH)
    changing = np.tile(np.linspace(0, 1, WIDTH), NUM)[None]
    assert order_p_value(rows, values.reshape(-1), changing) is None
    assert p_value_of(np.zeros((NUM, WIDTH))) is None
