r"""The population: marginal likelihood, fit, uncertainty, comparison, posterior draws."""
