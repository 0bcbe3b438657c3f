"""Small tensors get one thread of torch, large ones those of the caller."""

import pytest
import torch

from pyro_amortized.runtime.threads import THREADS, threads_for, threads_of_caller


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    assert torch.get_num_threads() == 4
    torch.set_num_threads(before)


def test_small_tensors_get_one():
    with threads_for(1000):
        assert torch.get_num_threads() == 1
        assert threads_of_caller() == 4
        with threads_for(100 * THREADS.values_per_thread):  # a part of the work that is large
            assert torch.get_num_threads() == 4
        assert torch.get_num_threads() == 1


def test_large_tensors_get_those_of_the_caller():
    with threads_for(3 * THREADS.values_per_thread):
        assert torch.get_num_threads() == 3
    with threads_for(100 * THREADS.values_per_thread):
        assert torch.get_num_threads() == 4


def test_the_number_is_restored_after_an_error():
    with pytest.raises(ValueError, match="any"), threads_for(1):
        raise ValueError("any")
    assert threads_of_caller() == 4
