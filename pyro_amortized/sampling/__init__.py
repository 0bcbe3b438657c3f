r"""Posterior draws of every individual, corrected by the density of the model.

Importance sampling from any proposal, with stages of refinement where the weights are poor.
"""
