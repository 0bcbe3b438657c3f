r"""The population: marginal likelihood, fit, uncertainty, comparison and posterior draws."""
