"""Behaviours (mall, festival, zone, ledger, session) and the runtime that hosts them in shards."""
