"""Options that follow from the number of training pairs."""

import pytest

from pyro_amortized import TrainingOptions


@pytest.mark.parametrize(
    ("num_pairs", "size", "passes"),
    [
        (300_000, 1024, 21),  # 6,000 steps
        (3_000_000, 1024, 12),
        (10_000, 128, 77),
        (2_000, 128, 80),  # a quick trial: not 400 passes
        (None, 1024, 12),
    ],
)
def test_batches_and_passes(num_pairs, size, passes):
    options = TrainingOptions().resolved(num_pairs)
    assert (options.batch_size, options.max_epochs) == (size, passes)


def test_what_is_given_stays():
    options = TrainingOptions(max_epochs=300, batch_size=64).resolved(2_000)
    assert options.chosen == (64, 300)


@pytest.mark.parametrize(
    ("num_latent", "num_pairs", "rate"),
    [(0, None, 0.02), (4, None, 0.02), (6, None, 0.01), (6, 2_000, 0.01)],
)
def test_many_parameters_with_populations_are_learned_at_a_lower_rate(num_latent, num_pairs, rate):
    assert TrainingOptions().resolved(num_pairs, num_latent).peak_rate == rate
    given = TrainingOptions(learning_rate=0.005).resolved(num_pairs, num_latent)
    assert given.peak_rate == 0.005
