"""Whether recorded values are what the model says: residuals, their tests, and what is missing."""
