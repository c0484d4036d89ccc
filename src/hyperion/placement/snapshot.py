"""A cluster in columns, one row a node: what the planner, the simulator and a learned policy see.

Kept up to date by holds and drops, never rebuilt in operation; a test proves that both are equal.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.cluster import Shape
from hyperion.model.constraints import LEVELS
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Job
from hyperion.model.node import Node
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement.feasibility import kind_of_node
from hyperion.placement.groups import Free, Group, Groups, kind_key
from hyperion.placement.labels import Labels
from hyperion.placement.neighbours import Neighbours, is_social

__all__ = ["Free", "Snapshot", "empty", "rebuild"]
CORDONED, SILENT = 1, 2
"""Bits of the column ``shut``; 0 is a node that may be used."""
ABSENT = 255
"""``shut`` of a row without a node."""
CPUS, MEMORY, DISK, WHOLE, PART = range(5)
"""Which line of ``amounts`` is what."""
MOST = 2**30
"""No amount counts for more than this (a million CPUs, a pebibyte), so that four bytes hold it."""
MOST_CUSTOM = 2**60


class Snapshot:
    """Columns are over-allocated; the first ``rows`` entries count. Rows are used again.

    What is free may be less than nothing: a caller may hold places that others have not left yet.
    """

    __slots__ = (
        "_cells",
        "_free_rows",
        "_gpus",
        "_groups",
        "_held",
        "amounts",
        "changed",
        "changed_from",
        "cluster",
        "custom",
        "custom_row",
        "devices",
        "free_cpus",
        "free_disk",
        "free_memory",
        "fullness",
        "group",
        "labels",
        "memo",
        "neighbours",
        "nodes",
        "openings",
        "part",
        "region",
        "row",
        "rows",
        "shut",
        "structure",
        "trials",
        "whole",
    )

    def __init__(self, cluster: str = "", region: str = "") -> None:
        self.cluster = cluster
        self.region = region
        """With both empty, ``infra`` is not checked here: the federation has done so."""
        self.rows = 0
        self.nodes: list[Node | None] = []
        self.row: dict[NodeId, int] = {}
        self.labels = Labels()
        self.neighbours = Neighbours()
        self.structure = 0
        """Counts changes of nodes, not of what they hold or whether they are shut."""
        self.openings = 0
        """Counts changes of ``shut``."""
        self.memo: dict[Any, Any] = {}
        """What the planner derived from the structure; emptied whenever that changes."""
        self.trials: list[Any] = []
        """Copies of the columns that no round is using; see ``trial``."""
        self.changed: list[int] = []
        """Rows whose amounts have changed, in order; the first entry is number ``changed_from``."""
        self.changed_from = 0
        self.amounts: NDArray[np.int32] = np.zeros((5, 0), np.int32)
        """What is free, a line a dimension; ``free_cpus`` and the like are its lines by name."""
        self.custom_row: dict[str, int] = {}
        """Which line of ``custom`` is which countable."""
        self.custom: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self.fullness: NDArray[np.float64] = np.zeros(0)
        self.group: NDArray[np.int32] = np.zeros(0, np.int32)
        self.shut: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.devices: NDArray[np.int32] = np.zeros((0, 0), np.int32)
        """Row by GPU index: thousandths free; 0 where the node has no such GPU."""
        self._gpus: NDArray[np.int32] = np.zeros(0, np.int32)
        """The sum of ``devices``."""
        self._groups = Groups()
        self._free_rows: list[int] = []
        self._held: dict[NodeId, dict[AllocationId, Allocation]] = {}
        self._bind()

    @staticmethod
    def empty(cluster: str = "", region: str = "") -> "Snapshot":
        return Snapshot(cluster, region)

    @property
    def groups(self) -> list[Group]:
        return self._groups.listed

    # -- nodes ----------------------------------------------------------------------------------

    def add_node(self, node: Node) -> None:
        """A new node, or new facts about a known one; what it holds stays held."""
        known = self.row.get(node.id)
        if known is not None:
            if self.nodes[known] != node:
                self._replace(node, int(self.shut[known]))
            return
        capacity = node.capacity
        row = self._free_rows.pop() if self._free_rows else self._new_row()
        self._widen(capacity)
        self.row[node.id] = row
        self.nodes[row] = node
        self.shut[row] = 0
        self.amounts[:, row] = 0
        self.amounts[CPUS, row] = min(capacity.cpus_milli, MOST)
        self.amounts[MEMORY, row] = min(capacity.memory_mib, MOST)
        self.amounts[DISK, row] = min(capacity.disk_mib, MOST)
        for name, amount in capacity.custom:
            self.custom[self.custom_row[name], row] = min(amount, MOST_CUSTOM)
        self.devices[row] = 0
        self.devices[row, : capacity.gpus] = MILLI
        self._held[node.id] = {}
        regroup = self.labels.add(row, node.labels)
        kind = kind_of_node(node, self.labels.of_kind(node.labels))
        self.group[row] = self._groups.join(kind)
        self._bind()
        self._begin(row, capacity)
        self.groups[self.group[row]].add(1, self._free(row))
        self._restructured(regroup)

    def remove_node(self, id: NodeId) -> None:
        """With all that it holds; later drops of that are ignored."""
        row = self.row.pop(id)
        node = self.nodes[row]
        assert node is not None, "a known node has a row"
        if self.shut[row] == 0:
            self.groups[self.group[row]].add(-1, self._free(row))
        self._groups.leave(int(self.group[row]))
        for held in self._held.pop(id):
            self.neighbours.drop(held)
        regroup = self.labels.remove(row, node.labels)
        self.nodes[row] = None
        self.amounts[:, row] = 0
        self.custom[:, row] = 0
        self.devices[row] = 0
        self.fullness[row] = 0.0
        self._gpus[row] = 0
        self.group[row] = 0
        self.shut[row] = ABSENT
        self._free_rows.append(row)
        self._change(row)
        self._restructured(regroup)

    def set_schedulable(self, id: NodeId, cordoned: bool, silent: bool) -> None:
        row = self.row[id]
        shut = CORDONED * cordoned | SILENT * silent
        before = int(self.shut[row])
        if shut != before:
            self.openings += 1
        self.shut[row] = shut
        if (shut == 0) != (before == 0):
            self.groups[self.group[row]].add(1 if shut == 0 else -1, self._free(row))

    # -- what they hold -------------------------------------------------------------------------

    def hold(self, allocation: Allocation, job: Job | None = None) -> None:
        """Count an allocation against its node, which must be known. Doubling changes nothing.

        Its job is needed by those that want to be near to it or away from it, and by its own
        further replicas when it spreads or packs them.
        """
        held = self._held[allocation.node]
        if allocation.id not in held:
            held[allocation.id] = allocation
            row = self.row[allocation.node]
            self._charge(row, allocation.request, allocation.devices, 1)
            if job is not None and is_social(job):
                self.neighbours.put(allocation.id, row, job)

    def drop(self, allocation: Allocation) -> None:
        """Give back what ``hold`` took; nothing when it is not held (any more)."""
        held = self._held.get(allocation.node)
        kept = held.pop(allocation.id, None) if held else None
        if kept is not None:
            self._charge(self.row[kept.node], kept.request, kept.devices, -1)
            if self.neighbours:
                self.neighbours.drop(kept.id)

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
        ours = {kind_key(g.kind): (g.nodes, g.as_shape()) for g in self.groups if g.nodes}
        theirs = {kind_key(g.kind): (g.nodes, g.as_shape()) for g in other.groups if g.nodes}
        if ours != theirs:
            yield f"shapes: {ours} != {theirs}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and next(self.differences(other), None) is None

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Snapshot({len(self.row)} nodes, {len(self.groups)} kinds)"

    # -- rows -----------------------------------------------------------------------------------

    def _charge(
        self, row: int, request: ResourceRequest, devices: tuple[int, ...], sign: int
    ) -> None:
        c = self._cells
        group = self._groups.listed[c.group[row]]
        cpus, memory, disk = request.cpus_milli, request.memory_mib, request.disk_mib
        if sign < 0:
            cpus, memory, disk = -cpus, -memory, -disk
        c.cpus[row] -= cpus
        c.memory[row] -= memory
        if disk:
            c.disk[row] -= disk
        for name, amount in request.custom:
            line = self.custom_row.get(name)
            if line is not None:
                self.custom[line, row] -= sign * amount
        charged = 0
        capacity = group.capacity
        if devices:
            share = sign * min(request.gpus_milli, MILLI)
            begin = row * c.width
            for device in devices:
                if device < capacity.gpus:
                    c.devices[begin + device] -= share
                    charged += share
            c.gpus[row] -= charged
            free = c.devices[begin : begin + capacity.gpus].tolist()
            c.whole[row], c.part[row] = count_devices(free)
        c.fullness[row] = fullness(capacity, c.gpus[row], c.cpus[row], c.memory[row])
        if c.shut[row] == 0:
            group.cpus_milli -= cpus
            group.memory_mib -= memory
            group.gpus_milli -= charged
            group.shape = None
        self._change(row)

    def _begin(self, row: int, capacity: Capacity) -> None:
        """What follows from the amounts of an empty node."""
        c = self._cells
        c.gpus[row] = capacity.gpus * MILLI
        c.whole[row], c.part[row] = capacity.gpus, 0
        c.fullness[row] = fullness(capacity, c.gpus[row], c.cpus[row], c.memory[row])

    def _free(self, row: int) -> Free:
        custom = tuple(
            (name, int(self.custom[line, row]))
            for name, line in sorted(self.custom_row.items())
            if self.custom[line, row]
        )
        return Free(
            int(self._gpus[row]),
            int(self.amounts[CPUS, row]),
            int(self.amounts[MEMORY, row]),
            int(self.amounts[DISK, row]),
            custom,
        )

    def _facts(self, id: NodeId) -> object:
        row = self.row.get(id)
        if row is None:
            return None
        group = self.groups[self.group[row]]
        return (
            self.nodes[row],
            int(self.shut[row]),
            float(self.fullness[row]),
            self.amounts[:, row].tolist(),
            self._free(row),
            self.devices[row, : group.capacity.gpus].tolist(),
            group.kind,
            [(a, self.neighbours.job_of(a)) for a in sorted(self._held[id])],
            [self.labels.level_of(row, level) for level in LEVELS],
        )

    def _replace(self, node: Node, shut: int) -> None:
        held = [(a, self.neighbours.job_of(a.id)) for a in self._held[node.id].values()]
        self.remove_node(node.id)
        self.add_node(node)
        self.set_schedulable(node.id, bool(shut & CORDONED), bool(shut & SILENT))
        for allocation, job in held:
            self.hold(allocation, job)

    def _bind(self) -> None:
        """Name the lines of columns that may have been made anew."""
        self.free_cpus: NDArray[np.int32] = self.amounts[CPUS]
        """Thousandths."""
        self.free_memory: NDArray[np.int32] = self.amounts[MEMORY]
        """MiB, as the next one."""
        self.free_disk: NDArray[np.int32] = self.amounts[DISK]
        self.whole: NDArray[np.int32] = self.amounts[WHOLE]
        """GPUs that nobody uses."""
        self.part: NDArray[np.int32] = self.amounts[PART]
        """The largest free share, in thousandths, of a GPU that is already partly used."""
        self._cells = _Cells(self)

    def _new_row(self) -> int:
        if self.rows == len(self.shut):
            size = self.rows + max(16, self.rows)
            self.amounts = _resized(self.amounts, (5, size))
            self.custom = _resized(self.custom, (len(self.custom), size))
            self.devices = _resized(self.devices, (size, self.devices.shape[1]))
            self.fullness = _resized(self.fullness, (size,))
            self.group = _resized(self.group, (size,))
            self._gpus = _resized(self._gpus, (size,))
            self.shut = _resized(self.shut, (size,))
        self.nodes.append(None)
        self.rows += 1
        return self.rows - 1

    def _widen(self, capacity: Capacity) -> None:
        if capacity.gpus > self.devices.shape[1]:
            self.devices = _resized(self.devices, (len(self.devices), capacity.gpus))
        new = [name for name, _ in capacity.custom if name not in self.custom_row]
        if new:
            for name in new:
                self.custom_row[name] = len(self.custom_row)
            self.custom = _resized(self.custom, (len(self.custom_row), len(self.shut)))

    def _restructured(self, regroup: bool) -> None:
        self.structure += 1
        if self.memo:
            self.memo.clear()
        if regroup:
            self._regroup()

    def _regroup(self) -> None:
        """A label has come to tell kinds apart, or no longer does."""
        self._groups = Groups()
        for row, node in enumerate(self.nodes):
            if node is not None:
                kind = kind_of_node(node, self.labels.of_kind(node.labels))
                self.group[row] = self._groups.join(kind)
                if self.shut[row] == 0:
                    self.groups[self.group[row]].add(1, self._free(row))

    def _change(self, row: int) -> None:
        self.changed.append(row)
        if len(self.changed) > _LONGEST_LOG:  # who has not read so far begins with all rows anew
            self.changed_from += len(self.changed)
            self.changed.clear()


class _Cells:
    """Single cells of columns: a memoryview answers several times faster than an array."""

    __slots__ = (
        "cpus",
        "devices",
        "disk",
        "fullness",
        "gpus",
        "group",
        "memory",
        "part",
        "shut",
        "whole",
        "width",
    )

    def __init__(self, s: Snapshot) -> None:
        self.cpus, self.memory, self.disk = _ints(s.free_cpus, s.free_memory, s.free_disk)
        self.whole, self.part = _ints(s.whole, s.part)
        self.gpus, self.group, self.shut = _ints(s._gpus, s.group, s.shut)
        self.fullness: memoryview[float] = memoryview(s.fullness.data)
        self.devices, self.width = _ints(s.devices.reshape(-1))[0], s.devices.shape[1]


def _ints(*columns: NDArray[Any]) -> list["memoryview[int]"]:
    return [memoryview(column.data) for column in columns]


_LONGEST_LOG = 8192


def empty(cluster: str = "", region: str = "") -> Snapshot:
    """No nodes yet. ``infra`` is checked by the planner only if the cluster says where it is."""
    return Snapshot(cluster, region)


def rebuild(
    nodes: Iterable[Node],
    allocations: Iterable[Allocation],
    jobs: Mapping[JobId, Job] | None = None,
) -> Snapshot:
    """The columns from scratch; allocations that hold nothing any more are left out."""
    snapshot = Snapshot()
    for node in nodes:
        snapshot.add_node(node)
    for allocation in allocations:
        if not allocation.state.is_terminal:
            snapshot.hold(allocation, None if jobs is None else jobs.get(allocation.job))
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
    least = gpus_milli / (capacity.gpus * MILLI) if capacity.gpus else 1.0
    if capacity.cpus_milli:
        part = cpus_milli / capacity.cpus_milli
        least = part if part < least else least  # min() takes three times as long
    if capacity.memory_mib:
        part = memory_mib / capacity.memory_mib
        least = part if part < least else least
    used = 1.0 - least
    return 0.0 if used < 0.0 else 1.0 if used > 1.0 else used


def _resized(old: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    new = np.zeros(shape, old.dtype)
    new[tuple(slice(0, n) for n in old.shape)] = old
    return new
