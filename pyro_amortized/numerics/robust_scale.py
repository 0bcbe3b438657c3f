"""Factors for robust standard deviations."""

# The median absolute deviation of a normal distribution times this is its standard deviation.
MAD_TO_SD = 1.4826

# Distance of the quartiles of a normal distribution, in its standard deviations.
QUARTILE_DISTANCE = 1.349
