"""Esplanade: a live spatial service for malls and festivals, on Ray."""

__version__ = "0.1.0"
