r"""Posterior draws of every individual, corrected by the density of the model.

Importance sampling from any proposal, with a refinement of the individuals whose weights are poor.
"""
