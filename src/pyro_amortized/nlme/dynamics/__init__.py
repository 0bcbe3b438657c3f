r"""Ordinary differential equations with doses: events, solvers, steady states."""

from .solve import REASONS as REASONS
from .solve import Piecewise as Piecewise
from .solve import Solution as Solution
from .solve import integrate as integrate
from .solve import solve as solve
