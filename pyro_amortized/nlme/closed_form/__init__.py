r"""Pharmacokinetic models with a solution in closed form."""
