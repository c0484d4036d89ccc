"""Made by scripts/generate_proto.py with grpcio-tools 1.85.1."""
