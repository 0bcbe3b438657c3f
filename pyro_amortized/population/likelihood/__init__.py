"""The marginal likelihood on draws: exact, expanded, quadratic, and its Monte Carlo error."""
