"""The codec: our values to and from protobuf, YAML, JSON and shell environments."""
