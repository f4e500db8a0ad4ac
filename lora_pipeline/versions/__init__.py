"""Versions: the registry, what is served and was served, and the weights as evidence."""
