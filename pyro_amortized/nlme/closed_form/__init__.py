r"""Pharmacokinetic models whose solution has a closed form."""
