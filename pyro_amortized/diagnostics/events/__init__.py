"""Whether events are what the model says: residuals, hazards, immune individuals."""
