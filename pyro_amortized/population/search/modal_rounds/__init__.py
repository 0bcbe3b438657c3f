"""The first rounds of a fit, with a few points about the mode of every individual."""
