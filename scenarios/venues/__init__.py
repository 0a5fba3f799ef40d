"""Venues of our own, and the scripts that make them: `python -m scenarios.venues.make_mall`, `python -m scenarios.venues.make_festival`."""
