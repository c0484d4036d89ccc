"""Hyperion-X: the operating system for AI compute."""

__version__ = "0.1.0"
