"""Scenario files, the runner, the oracle, recordings and the report."""
