"""The search for the maximum of the marginal likelihood: starts, rounds, and when they end."""
