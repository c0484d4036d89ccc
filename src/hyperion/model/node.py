"""A machine that runs allocations."""

from msgspec import Struct

from hyperion.model.ids import NodeId
from hyperion.model.market import Market
from hyperion.model.resources import Capacity

PAUSE = "pause"
"""The ability of a node to let replicas stand still, with all that they hold, and go on."""


CRIU = "criu"
"""Its CRIU works: replicas that stand still can be set aside on its disk; the value is which."""


class Taint(Struct, frozen=True, gc=False):
    """Keeps jobs off the node that do not tolerate it."""

    key: str
    value: str = ""


class Node(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What an agent says of its machine when it attaches."""

    id: NodeId
    capacity: Capacity
    declared: tuple[str, ...] = ()
    """Names of the resources that are declared, not real (``--declare``); shown everywhere."""
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    address: str = "127.0.0.1"
    """Where other nodes can reach it."""
    instance_type: str = ""
    market: Market = Market.OWNED
    usd_per_hour: float = 0.0
    """For the whole machine; 0 lets the federation take the catalogue's price of the instance."""
    runtimes: tuple[str, ...] = ("process",)
    version: str = ""
    abilities: dict[str, str] = {}
    """What this host can enforce, such as ``cgroup: v2`` or ``memory_limit: no (not root)``."""
