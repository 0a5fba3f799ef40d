"""Readers of other people's plans. Each gives an `ImportResult`: the venue, and an account of every feature that was read."""
