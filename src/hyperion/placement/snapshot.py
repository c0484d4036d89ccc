"""A cluster in columns, one row a node: what the planner, the simulator and a learned policy see.

Kept up to date by holds and drops, never rebuilt in operation; a test proves that both are equal.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.cluster import Shape
from hyperion.model.ids import AllocationId, NodeId
from hyperion.model.node import Node
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement.feasibility import Kind, kind_of_node

CORDONED, SILENT = 1, 2
"""Bits of the column ``shut``; 0 is a node that may be used."""
ABSENT = 255
"""``shut`` of a row without a node."""


class Free(Struct, frozen=True):
    """What a node has left."""

    gpus_milli: int
    cpus_milli: int
    memory_mib: int
    disk_mib: int


class Group:
    """The nodes of one kind, with sums over those that may be used."""

    __slots__ = ("cpus_milli", "gpus_milli", "kind", "memory_mib", "nodes", "shape", "usable")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
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


class Snapshot:
    """Columns are over-allocated; the first ``rows`` entries count. Rows are used again."""

    __slots__ = (
        "_free_rows",
        "_group_ids",
        "_held",
        "_spare_groups",
        "cluster",
        "devices",
        "free_cpus",
        "free_disk",
        "free_memory",
        "fullness",
        "group",
        "groups",
        "memo",
        "nodes",
        "part",
        "region",
        "row",
        "rows",
        "shut",
        "structure",
        "whole",
    )  # fmt: skip

    def __init__(self, cluster: str = "", region: str = "") -> None:
        self.cluster = cluster
        self.region = region
        """With both empty, ``infra`` is not checked here: the federation has done so."""
        self.rows = 0
        self.nodes: list[Node | None] = []
        self.row: dict[NodeId, int] = {}
        self.groups: list[Group] = []
        self.structure = 0
        """Counts changes of nodes, not of what they hold."""
        self.memo: dict[Any, Any] = {}
        """What the planner derived from the structure; emptied whenever that changes."""
        self.free_cpus: NDArray[np.int64] = np.zeros(0, np.int64)
        self.free_memory: NDArray[np.int64] = np.zeros(0, np.int64)
        self.free_disk: NDArray[np.int64] = np.zeros(0, np.int64)
        self.whole: NDArray[np.int64] = np.zeros(0, np.int64)
        """GPUs that nobody uses."""
        self.part: NDArray[np.int64] = np.zeros(0, np.int64)
        """The largest free share, in thousandths, of a GPU that is already partly used."""
        self.fullness: NDArray[np.float64] = np.zeros(0)
        self.group: NDArray[np.int32] = np.zeros(0, np.int32)
        self.shut: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.devices: NDArray[np.int32] = np.zeros((0, 0), np.int32)
        """Row by GPU index: thousandths free; 0 where the node has no such GPU."""
        self._free_rows: list[int] = []
        self._spare_groups: list[int] = []
        self._group_ids: dict[Any, int] = {}
        self._held: dict[NodeId, dict[AllocationId, Allocation]] = {}

    @staticmethod
    def empty(cluster: str = "", region: str = "") -> "Snapshot":
        return Snapshot(cluster, region)

    # -- nodes ----------------------------------------------------------------------------------

    def add_node(self, node: Node) -> None:
        """A new node, or new facts about a known one; what it holds stays held."""
        known = self.row.get(node.id)
        if known is not None:
            if self.nodes[known] != node:
                self._replace(node, int(self.shut[known]))
            return
        row = self._free_rows.pop() if self._free_rows else self._new_row(node.capacity.gpus)
        capacity = node.capacity
        self._widen(capacity.gpus)
        self.row[node.id] = row
        self.nodes[row] = node
        self.shut[row] = 0
        self.group[row] = self._join_group(kind_of_node(node))
        self.free_cpus[row] = capacity.cpus_milli
        self.free_memory[row] = capacity.memory_mib
        self.free_disk[row] = capacity.disk_mib
        self.devices[row] = 0
        self.devices[row, : capacity.gpus] = MILLI
        self._held[node.id] = {}
        self._refresh(row, capacity)
        self.groups[self.group[row]].add(1, self._free(row))
        self._restructured()

    def remove_node(self, id: NodeId) -> None:
        """With all that it holds; later drops of that are ignored."""
        row = self.row.pop(id)
        group_id = int(self.group[row])
        group = self.groups[group_id]
        if self.shut[row] == 0:
            group.add(-1, self._free(row))
        group.nodes -= 1
        if group.nodes == 0:
            self._group_ids.pop(_key(group.kind))
            self._spare_groups.append(group_id)
        self.nodes[row] = None
        for column in (self.free_cpus, self.free_memory, self.free_disk, self.whole, self.part):
            column[row] = 0
        self.devices[row] = 0
        self.fullness[row] = 0.0
        self.group[row] = 0
        self.shut[row] = ABSENT
        del self._held[id]
        self._free_rows.append(row)
        self._restructured()

    def set_schedulable(self, id: NodeId, cordoned: bool, silent: bool) -> None:
        row = self.row[id]
        shut = CORDONED * cordoned | SILENT * silent
        before = int(self.shut[row])
        if shut == before:
            return
        self.shut[row] = shut
        if (shut == 0) != (before == 0):
            self.groups[self.group[row]].add(1 if shut == 0 else -1, self._free(row))
        self._restructured()

    # -- what they hold -------------------------------------------------------------------------

    def hold(self, allocation: Allocation) -> None:
        """Count an allocation against its node, which must be known. Doubling changes nothing."""
        held = self._held[allocation.node]
        if allocation.id not in held:
            held[allocation.id] = allocation
            self._charge(allocation.node, allocation.request, allocation.devices, 1)

    def drop(self, allocation: Allocation) -> None:
        """Give back what ``hold`` took; nothing when it is not held (any more)."""
        kept = self._held.get(allocation.node, {}).pop(allocation.id, None)
        if kept is not None:
            self._charge(kept.node, kept.request, kept.devices, -1)

    def held(self, id: NodeId) -> Iterable[Allocation]:
        return self._held[id].values()

    # -- questions ------------------------------------------------------------------------------

    def free(self, id: NodeId) -> Free:
        return self._free(self.row[id])

    def shapes(self) -> tuple[Shape, ...]:
        """The usable nodes, counted by kind. Cheap: only what changed is built anew."""
        return tuple(g.as_shape() for g in self.groups if g.usable)

    def differences(self, other: "Snapshot") -> Iterator[str]:
        """Where two snapshots of the same nodes disagree, in words; rows may be in any order."""
        for id in self.row.keys() | other.row.keys():
            a, b = self._facts(id), other._facts(id)
            if a != b:
                yield f"node {id}: {a} != {b}"
        ours = {_key(g.kind): (g.nodes, g.as_shape()) for g in self.groups if g.nodes}
        theirs = {_key(g.kind): (g.nodes, g.as_shape()) for g in other.groups if g.nodes}
        if ours != theirs:
            yield f"shapes: {ours} != {theirs}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and next(self.differences(other), None) is None

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Snapshot({len(self.row)} nodes, {len(self.groups)} kinds)"

    # -- rows -----------------------------------------------------------------------------------

    def _charge(
        self, id: NodeId, request: ResourceRequest, devices: tuple[int, ...], sign: int
    ) -> None:
        row = self.row[id]
        group = self.groups[self.group[row]]
        capacity = group.kind.capacity
        self.free_cpus[row] -= sign * request.cpus_milli
        self.free_memory[row] -= sign * request.memory_mib
        self.free_disk[row] -= sign * request.disk_mib
        charged = 0
        share = min(request.gpus_milli, MILLI)
        for device in devices:
            if device < capacity.gpus:
                self.devices[row, device] -= sign * share
                charged += share
        self._refresh(row, capacity)
        if self.shut[row] == 0:
            group.cpus_milli -= sign * request.cpus_milli
            group.memory_mib -= sign * request.memory_mib
            group.gpus_milli -= sign * charged
            group.shape = None

    def _refresh(self, row: int, capacity: Capacity) -> None:
        gpus_milli = 0
        if capacity.gpus:
            devices = self.devices[row, : capacity.gpus].tolist()
            gpus_milli = sum(devices)
            self.whole[row], self.part[row] = count_devices(devices)
        else:
            self.whole[row] = self.part[row] = 0
        self.fullness[row] = fullness(
            capacity, gpus_milli, int(self.free_cpus[row]), int(self.free_memory[row])
        )

    def _free(self, row: int) -> Free:
        return Free(
            int(self.devices[row].sum()),
            int(self.free_cpus[row]),
            int(self.free_memory[row]),
            int(self.free_disk[row]),
        )

    def _facts(self, id: NodeId) -> object:
        row = self.row.get(id)
        if row is None:
            return None
        columns = (self.free_cpus, self.free_memory, self.free_disk, self.whole, self.part)
        gpus = self.groups[self.group[row]].kind.capacity.gpus
        return (
            self.nodes[row],
            int(self.shut[row]),
            float(self.fullness[row]),
            [int(c[row]) for c in columns],
            self.devices[row, :gpus].tolist(),
            self.groups[self.group[row]].kind,
            sorted(self._held[id]),
        )

    def _replace(self, node: Node, shut: int) -> None:
        held = self._held[node.id]
        self.remove_node(node.id)
        self.add_node(node)
        self.set_schedulable(node.id, bool(shut & CORDONED), bool(shut & SILENT))
        for allocation in held.values():
            self.hold(allocation)

    def _new_row(self, gpus: int) -> int:
        if self.rows == len(self.shut):
            more = max(16, self.rows)
            for name in _COLUMNS:
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))
            width = max(gpus, self.devices.shape[1])
            self.devices = _resized(self.devices, self.rows + more, width)
        self.nodes.append(None)
        self.rows += 1
        return self.rows - 1

    def _widen(self, gpus: int) -> None:
        if gpus > self.devices.shape[1]:
            self.devices = _resized(self.devices, len(self.devices), gpus)

    def _join_group(self, kind: Kind) -> int:
        key = _key(kind)
        found = self._group_ids.get(key)
        if found is None:
            if self._spare_groups:
                found = self._spare_groups.pop()
                self.groups[found] = Group(kind)
            else:
                found = len(self.groups)
                self.groups.append(Group(kind))
            self._group_ids[key] = found
        self.groups[found].nodes += 1
        return found

    def _restructured(self) -> None:
        self.structure += 1
        if self.memo:
            self.memo.clear()


_COLUMNS = (
    "free_cpus",
    "free_memory",
    "free_disk",
    "whole",
    "part",
    "fullness",
    "group",
    "shut",
)


def empty(cluster: str = "", region: str = "") -> Snapshot:
    """No nodes yet. ``infra`` is checked by the planner only if the cluster says where it is."""
    return Snapshot(cluster, region)


def rebuild(nodes: Iterable[Node], allocations: Iterable[Allocation]) -> Snapshot:
    """The columns from scratch; allocations that hold nothing any more are left out."""
    snapshot = Snapshot()
    for node in nodes:
        snapshot.add_node(node)
    for allocation in allocations:
        if not allocation.state.is_terminal:
            snapshot.hold(allocation)
    return snapshot


def count_devices(free_milli: list[int]) -> tuple[int, int]:
    """(GPUs that nobody uses, the largest free share of one that is partly used)."""
    whole = part = 0
    for free in free_milli:
        if free == MILLI:
            whole += 1
        elif free > part:
            part = free
    return whole, part


def fullness(capacity: Capacity, gpus_milli: int, cpus_milli: int, memory_mib: int) -> float:
    """The used share of the fullest of GPUs, CPUs and memory, from what is free."""
    least = 1.0
    if capacity.gpus:
        least = gpus_milli / (capacity.gpus * MILLI)
    if capacity.cpus_milli:
        least = min(least, cpus_milli / capacity.cpus_milli)
    if capacity.memory_mib:
        least = min(least, memory_mib / capacity.memory_mib)
    return min(1.0, max(0.0, 1.0 - least))


def _resized(old: NDArray[np.int32], rows: int, width: int) -> NDArray[np.int32]:
    new = np.zeros((rows, width), np.int32)
    new[: old.shape[0], : old.shape[1]] = old
    return new


def _key(kind: Kind) -> tuple[object, ...]:
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
