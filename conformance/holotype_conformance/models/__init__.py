"""The claims about a model: the candidate, its subject, the properties, the deviations and the diagnosis."""
