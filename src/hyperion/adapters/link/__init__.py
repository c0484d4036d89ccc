"""How the daemons talk: gRPC over mutual TLS."""
