"""The Python API of a federation, in sync and async form."""
