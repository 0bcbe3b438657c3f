"""The result of a fit: estimates, standard errors, messages, tables and files."""
