r"""Simulations for training: drawn from the model, kept in memory or on disk."""
