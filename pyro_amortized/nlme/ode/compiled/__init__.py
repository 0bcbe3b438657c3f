r"""Compiled solvers for right-hand sides in torch.

A right-hand side is traced to scalar expressions, which become Python source that numba compiles.
This package knows no doses and no cohorts.
"""
