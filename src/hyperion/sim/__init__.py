"""The seeded world: the production machines under a seeded clock, network and fleet."""
