r"""Ordinary differential equations with doses: events, solvers, steady states."""

from .solve import integrate as integrate
from .solve import solve as solve
from .task import REASONS as REASONS
from .task import Piecewise as Piecewise
from .task import Solution as Solution
from .times import merge_times as merge_times
