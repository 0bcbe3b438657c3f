r"""Compiled solvers for right-hand sides in torch: traced, written out, compiled by numba."""
