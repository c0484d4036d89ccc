"""Pausing what runs: freezer, fast path, cooperative pages."""
