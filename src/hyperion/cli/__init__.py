"""The hyperion command."""
