"""Whether random effects are what the population model says."""
