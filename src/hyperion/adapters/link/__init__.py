"""How the daemons talk: gRPC over mutual TLS."""

import os

# gRPC's newer listener hands each message from thread to thread, about six times; the older one
# takes it where it comes in. With 5,000 agents at 1 Hz a server that only reads needs 0.90 cores
# with the one and 0.59 with the other (bench/agents.py --floor, grpcio 1.85). Read at first use.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
