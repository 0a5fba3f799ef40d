"""Journal, snapshots, outbox, catalogue, broker: interfaces, and their PostgreSQL, Redis and in-memory drivers."""
