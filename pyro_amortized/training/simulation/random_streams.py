r"""The streams of random numbers of one training: one for every purpose and place.

.. math:: \text{stream} = h(\text{seed};\ \text{purpose}, \text{place})

The hash h is ``numpy.random.SeedSequence``, with purpose and place as its spawn key. Streams that
differ in seed, purpose or place are independent, so that what is drawn does not depend on the order
of the draws, nor on the process that makes them.
"""

from enum import IntEnum, unique

import numpy as np
from torch import Generator

VALIDATION = -1  # number of the validation set among the shards


@unique
class Purpose(IntEnum):
    r"""What a stream is for, and the place that follows it.

    The numbers determine the streams: a new purpose gets the next number, and none is used again.
    """

    SIMULATION = 1  # shard
    MISSING_VALUES = 2  # of a shard in a pass: pass, shard
    SHARD_ORDER = 3  # pass
    ROW_ORDER = 4  # pass, shard
    NETWORK_FORM = 5  # missing values of the shard that the networks take form and scales from
    PROBE = 6  # missing values and weights of the simulations that a run is recognised by
    SHARPENING_WEIGHTS = 7  # initial weights of the second flow
    SHARPENING_ORDER = 8  # of the rows that the second flow is trained on


def random_stream(seed: int, purpose: Purpose, *place: int) -> Generator:
    r"""The random generator of one stream.

    Args:
        seed: Seed of the training.
        purpose: What the numbers are for.
        *place: Whole numbers from -1.

    Example:
        >>> a, b = (random_stream(0, Purpose.ROW_ORDER, 0, shard) for shard in (1, 2))
        >>> a.initial_seed() == b.initial_seed()
        False
    """
    key = (purpose, *(number + 1 for number in place))
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(2)
    return Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))
