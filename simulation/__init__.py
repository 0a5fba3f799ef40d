"""The crowd engine (pure), and the load generator, a real client of the gateway."""
