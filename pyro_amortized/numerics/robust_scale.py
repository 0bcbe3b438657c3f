"""A factor for robust standard deviations."""

# The median absolute deviation of a normal distribution times this is its standard deviation.
MAD_TO_SD = 1.4826
