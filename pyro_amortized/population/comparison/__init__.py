"""Comparison of fits, profiles of the likelihood, and tests of fixed parameters."""
