"""What the draws of an individual come from."""

from enum import IntEnum


class Stage(IntEnum):
    """The stage of the sampling that served an individual."""

    # The first proposal: the guide, or without one the population.
    FIRST = 0
    # A mixture of Student-t distributions that was fitted to weighted draws of the individual.
    MIXTURE = 1
    # A mixture that was fitted to a chain of NUTS.
    CHAIN = 2


NAMES = {Stage.MIXTURE: "student-t mixture", Stage.CHAIN: "nuts"}
