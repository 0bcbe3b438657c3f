"""Generators from seeds."""

import pytest
import torch

from pyro_amortized.errors import SettingError
from pyro_amortized.runtime.random_numbers import fork_seed, make_generator


def test_equal_seeds_give_equal_numbers_and_others_do_not():
    first, second, other = (torch.rand(5, generator=make_generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_generator_is_used_as_it_is():
    generator = torch.Generator().manual_seed(3)
    assert make_generator(generator) is generator


def test_seeds_of_one_generator_differ_and_can_be_repeated():
    first, second = (make_generator(7) for _ in range(2))
    seeds = [fork_seed(first) for _ in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [fork_seed(second) for _ in range(100)]
    assert all(0 <= s < 2**63 for s in seeds)


def test_global_generators_are_left_alone():
    state = torch.get_rng_state()
    fork_seed(make_generator(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_wrong_seed_is_an_error():
    with pytest.raises(SettingError):
        make_generator(-1)
