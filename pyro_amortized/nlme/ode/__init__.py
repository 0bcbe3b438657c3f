r"""Ordinary differential equations with doses: events, solvers and steady states."""

from .interface import integrate as integrate
from .interface import solve as solve
from .observation_times import merge_times as merge_times
from .problem import REASONS as REASONS
from .problem import Piecewise as Piecewise
from .problem import Solution as Solution
