r"""The streams of random numbers of a training."""

from itertools import combinations, product

import torch

from pyro_amortized.training.simulation.random_streams import VALIDATION, Purpose, random_stream

NUMBERS = (VALIDATION, 0, 1, 3, 4, 6, 7, 10**9, 2**40)
PLACES = [(), *product(NUMBERS, repeat=1), *product(NUMBERS, repeat=2)]


def test_streams_of_different_purposes_and_places_differ():
    """Also where a place is the beginning of another one, or a seed has two words."""
    keys = list(product((0, 1, 7, 2**32), Purpose, PLACES))
    seeds = {random_stream(seed, purpose, *place).initial_seed() for seed, purpose, place in keys}
    assert len(seeds) == len(keys)


def test_numbers_of_different_streams_differ():
    """Nor does one stream begin within another one."""
    keys = [(purpose, place) for purpose in Purpose for place in ((), (VALIDATION,), (0,), (4, 0))]
    drawn = [
        torch.rand(1000, generator=random_stream(0, purpose, *place)) for purpose, place in keys
    ]
    for one, other in combinations(drawn, 2):
        assert torch.isin(one, other).sum() < 10  # chance: 1000 * 1000 / 2**24


def test_a_stream_is_repeated():
    first, second = (torch.rand(5, generator=random_stream(3, Purpose.PROBE)) for _ in range(2))
    assert torch.equal(first, second)
