"""How the draws of every individual follow the population."""
