"""The nodes of a cluster by kind, with sums over those that may be used."""

from msgspec import Struct

from hyperion.model.cluster import Shape
from hyperion.model.resources import Capacity
from hyperion.placement.feasibility import Kind


class Free(Struct, frozen=True):
    """What a node has left."""

    gpus_milli: int
    cpus_milli: int
    memory_mib: int
    disk_mib: int
    custom: tuple[tuple[str, int], ...] = ()


class Group:
    """The nodes of one kind, with sums over those that may be used."""

    __slots__ = (
        "capacity",
        "cpus_milli",
        "gpus_milli",
        "kind",
        "memory_mib",
        "nodes",
        "shape",
        "usable",
    )

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.capacity: Capacity = kind.capacity
        self.nodes = 0
        """All of them, usable or not."""
        self.usable = 0
        self.cpus_milli = 0
        self.gpus_milli = 0
        self.memory_mib = 0
        self.shape: Shape | None = None
        """As last reported; None when something changed since."""

    def add(self, sign: int, free: Free) -> None:
        self.cpus_milli += sign * free.cpus_milli
        self.gpus_milli += sign * free.gpus_milli
        self.memory_mib += sign * free.memory_mib
        self.usable += sign
        self.shape = None

    def as_shape(self) -> Shape:
        if self.shape is None:
            kind = self.kind
            self.shape = Shape(
                capacity=kind.capacity,
                nodes=self.usable,
                instance_type=kind.instance_type,
                market=kind.market,
                usd_per_hour=kind.usd_per_hour,
                labels=kind.labels,
                taints=kind.taints,
                declared=kind.declared,
                free_cpus_milli=max(0, self.cpus_milli),
                free_gpus_milli=max(0, self.gpus_milli),
                free_memory_mib=max(0, self.memory_mib),
            )
        return self.shape


class Groups:
    """Numbered groups; a number whose last node has left is used again."""

    __slots__ = ("_ids", "_spare", "listed")

    def __init__(self) -> None:
        self.listed: list[Group] = []
        self._ids: dict[tuple[object, ...], int] = {}
        self._spare: list[int] = []

    def join(self, kind: Kind) -> int:
        """Count one node more; the number of its group."""
        key = kind_key(kind)
        found = self._ids.get(key)
        if found is None:
            if self._spare:
                found = self._spare.pop()
                self.listed[found] = Group(kind)
            else:
                found = len(self.listed)
                self.listed.append(Group(kind))
            self._ids[key] = found
        self.listed[found].nodes += 1
        return found

    def leave(self, number: int) -> None:
        group = self.listed[number]
        group.nodes -= 1
        if group.nodes == 0:
            self._ids.pop(kind_key(group.kind))
            self._spare.append(number)


def kind_key(kind: Kind) -> tuple[object, ...]:
    """A hashable equal of a kind (its labels are a dict)."""
    return (
        kind.capacity,
        tuple(sorted(kind.labels.items())) if kind.labels else (),
        kind.taints,
        kind.market,
        kind.instance_type,
        kind.usd_per_hour,
        kind.declared,
        kind.runtimes,
    )
