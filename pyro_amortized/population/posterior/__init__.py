"""The posterior of the population given the individuals of a fit."""
