r"""Codes that compiled solvers and the code around them share: kinds of events, and statuses."""

from enum import IntEnum


class Event(IntEnum):
    """What happens to a row at the time of an event; 0 is the padding."""

    ADD_AMOUNT = 1
    ADD_RATE = 2
    RESET = 3
    SET_STATE = 4
    ADD_STATE = 5
    NEXT_PIECE = 6


class SolverStatus(IntEnum):
    """What became of the solution of a row."""

    SOLVED = 0
    TOO_MANY_STEPS = 1
    NOT_FINITE = 2
    STEP_TOO_SMALL = 3
    NO_STEADY_STATE = 4
    STIFF = 5
