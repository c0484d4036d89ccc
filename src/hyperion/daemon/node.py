"""What an agent says of its machine: what is there, and what was declared instead."""

import socket

from msgspec.structs import replace

from hyperion.daemon.settings import AgentSettings
from hyperion.model.ids import NodeId
from hyperion.model.market import Market
from hyperion.model.node import Node
from hyperion.model.resources import Capacity

_FIELDS = {
    "accelerators": ("gpus", "gpu_type"),
    "cpus": ("cpus_milli",),
    "memory": ("memory_mib",),
    "disk": ("disk_mib",),
}


def describe(settings: AgentSettings, real: Capacity, version: str) -> Node:
    """The node, with declared resources in place of the real ones and named as declared.

    Countables of the site's own nobody can measure: they are what the settings say, and real.
    """
    declared = settings.declare
    said = {f: getattr(declared.capacity, f) for name in declared.names for f in _FIELDS[name]}
    return Node(
        id=NodeId(settings.node or socket.gethostname()),
        capacity=replace(real, custom=settings.custom, **said),
        declared=declared.names,
        labels=settings.labels,
        taints=settings.taints,
        address=settings.advertise or address_towards(settings.scheduler),
        instance_type=settings.instance_type,
        market=Market(settings.market),
        usd_per_hour=settings.usd_per_hour,
        version=version,
    )


def address_towards(target: str) -> str:
    """Which address of this machine faces ``host:port``; loopback when that cannot be told."""
    host, _, port = target.rpartition(":")
    try:
        family = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host.strip("[]"), int(port)))  # sends nothing: it only picks a route
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return "127.0.0.1"
