"""A cluster as the federation sees it: where it is, what it has, how full it is."""

from msgspec import Struct

from hyperion.model.ids import ClusterId
from hyperion.model.market import Market
from hyperion.model.resources import Capacity


class Cluster(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a scheduler says of itself when it attaches."""

    id: ClusterId
    region: str
    version: str = ""
    labels: dict[str, str] = {}


class Shape(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The nodes of a cluster that are alike, counted together."""

    capacity: Capacity
    """Of one node."""
    nodes: int
    """How many are there and may be used."""
    instance_type: str = ""
    market: Market = Market.OWNED
    usd_per_hour: float = 0.0
    labels: dict[str, str] = {}
    taints: tuple[tuple[str, str], ...] = ()
    declared: bool = False
    free_cpus_milli: int = 0
    """Sums over the nodes of the shape."""
    free_gpus_milli: int = 0
    free_memory_mib: int = 0


class ClusterLoad(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A cluster's state in a few numbers, sent when it changes."""

    shapes: tuple[Shape, ...] = ()
    waiting_jobs: int = 0
    running_jobs: int = 0
