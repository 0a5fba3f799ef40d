"""Benchmarks: one module a name, each runs ours and the peer on the same work in one process tree. `python -m benchmarks NAME`."""
