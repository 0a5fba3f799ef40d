"""The bottom of the import order: what at least three folders need, and nothing else."""
