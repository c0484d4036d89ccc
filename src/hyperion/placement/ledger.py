"""What runs, in numbers: who holds what on each node, and the coefficients of his regret.

A regret is ``fixed + slope * time since the last checkpoint``, so that it is known for any moment
without asking the job again. Jobs and seats have a line each in two tables of bytes, which the
compiled kernels read as arrays; the lines of a node's seats lie in one block.
"""

import struct
from collections.abc import Container, Iterable

import numpy as np
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, NodeId, QueueName
from hyperion.model.job import Priority
from hyperion.model.resources import MILLI
from hyperion.placement.regret import Terms

Long = NDArray[np.int64]
Float = NDArray[np.float64]

_TERM = struct.Struct("<2d6q")
FIXED_USD, SLOPE_USD, BEGAN_MS, EVERY_MS, FROM_MS, STANDING, PARTS = range(7)
"""A term's fields, the first two floating: ... whose checkpoints begin at, come every (0: never),
who may be stopped from; an index of ``standings``; into how many parts it can be broken."""
TERM_FIELDS = 8
_SEAT = struct.Struct("<8q")
TERM, CPUS, MEMORY, DISK, GPUS, SHARE, DEVICE, LEAVES = range(8)
"""A seat's fields: its line among the terms, amounts, whole GPUs, or the share of one device;
whether it is being stopped already. Of whole GPUs ``DEVICE`` is a set of bits."""
SEAT_FIELDS = 8
_FIRST_BLOCK = 4
_LONGEST_LOG = 8192


class Ledger:
    def __init__(self) -> None:
        self.standings: dict[tuple[QueueName, Priority, int], int] = {}
        """Numbers of (queue, class, nice): all that rights depend on."""
        self.place: dict[NodeId, int] = {}
        """Numbers of the nodes that hold something, or did."""
        self.first: Long = np.zeros(0, np.int64)
        """By place: where its block begins."""
        self.count: Long = np.zeros(0, np.int64)
        """By place: seats."""
        self.version: Long = np.zeros(0, np.int64)
        """By place: the number of the last change, of seats or of what their jobs cost."""
        self.changes = 0
        self.changed: list[int] = []
        """Places that have changed, in order; the first entry is number ``changed_from``."""
        self.changed_from = 0
        self.renumbered = 0
        """How often a number has passed to another node."""
        self._spare_places: list[int] = []
        self._size: list[int] = []
        self._terms = bytearray(TERM_FIELDS * 8 * 16)
        self._seats = bytearray(SEAT_FIELDS * 8 * 64)
        self._used_terms = 0
        self._spare_terms: list[int] = []
        self._used_seats = 0
        self._spare_blocks: dict[int, list[int]] = {}
        self._at: dict[AllocationId, tuple[int, int]] = {}
        """Where a seat is: its place, and which of the block."""
        self._ids: list[list[AllocationId]] = []
        """By place, in the order of the block."""
        self._views()

    def standing(self, queue: QueueName, priority: Priority, nice: int) -> int:
        key = queue, priority, nice
        found = self.standings.get(key)
        if found is None:
            found = self.standings[key] = len(self.standings)
        return found

    # -- terms ----------------------------------------------------------------------------------

    def new_term(self, terms: Terms) -> int:
        if self._spare_terms:
            term = self._spare_terms.pop()
        else:
            term = self._used_terms
            self._used_terms += 1
            if term * TERM_FIELDS * 8 == len(self._terms):
                self._terms = self._terms + bytes(len(self._terms))
                self._views()
        self.set_term(term, terms)
        return term

    def set_term(self, term: int, t: Terms) -> None:
        _TERM.pack_into(
            self._terms,
            term * TERM_FIELDS * 8,
            t.fixed_usd,
            t.slope_usd,
            t.began_ms,
            t.every_ms,
            t.from_ms,
            t.standing,
            t.parts,
            0,
        )

    def drop_term(self, term: int) -> None:
        self._spare_terms.append(term)

    # -- seats ----------------------------------------------------------------------------------

    def seat(self, a: Allocation, term: int, leaves: bool) -> None:
        """A new seat, or a known one anew."""
        known = self._at.get(a.id)
        if known is None:
            place = self.place.get(a.node)
            if place is None:
                place = self._new_place(a.node)
            at = len(self._ids[place])
            if at == self._size[place]:
                self._move(place)
            self._ids[place].append(a.id)
            self._at[a.id] = place, at
            self._counts[place] = at + 1
        else:
            place, at = known
        r = a.request
        gpus = share = device = 0
        if a.devices:
            if r.gpus_milli >= MILLI:
                gpus = len(a.devices)
                for d in a.devices:
                    device |= 1 << min(d, 62)
            else:
                share, device = r.gpus_milli, a.devices[0]
        _SEAT.pack_into(
            self._seats,
            (self._firsts[place] + at) * SEAT_FIELDS * 8,
            term,
            r.cpus_milli,
            r.memory_mib,
            r.disk_mib,
            gpus,
            share,
            device,
            leaves,
        )
        self._change(place)

    def has(self, id: AllocationId) -> bool:
        return id in self._at

    def unseat(self, id: AllocationId) -> None:
        """The last of the block takes its line."""
        place, at = self._at.pop(id)
        ids = self._ids[place]
        last = len(ids) - 1
        if at != last:
            width = SEAT_FIELDS * 8
            to, source = (self._firsts[place] + n for n in (at, last))
            line = self._seats[source * width : (source + 1) * width]
            self._seats[to * width : (to + 1) * width] = line
            ids[at] = ids[last]
            self._at[ids[at]] = place, at
        ids.pop()
        self._counts[place] = last
        self._change(place)

    def touch(self, ids: Iterable[AllocationId]) -> None:
        """What the jobs of these seats cost has changed."""
        for id in ids:
            self._change(self._at[id][0])

    def _change(self, place: int) -> None:
        self.changes += 1
        self._versions[place] = self.changes
        self.changed.append(place)
        if len(self.changed) > _LONGEST_LOG:  # who has not read so far compares all versions
            self.changed_from += len(self.changed)
            self.changed.clear()

    # -- tables ---------------------------------------------------------------------------------

    def forget(self, nodes: Container[NodeId]) -> None:
        """Number anew: without nodes that are not among these and hold nothing."""
        gone = [n for n, place in self.place.items() if n not in nodes and not self._ids[place]]
        for node in gone:
            self._spare_places.append(self.place.pop(node))
        self.renumbered += bool(gone)

    def _new_place(self, node: NodeId) -> int:
        if self._spare_places:
            place = self.place[node] = self._spare_places.pop()
            self.renumbered += 1
            return place
        place = self.place[node] = len(self._ids)
        if place == len(self.first):
            more = np.zeros(max(64, place), np.int64)
            self.first, self.count, self.version = (
                np.concatenate([column, more]) for column in (self.first, self.count, self.version)
            )
            self._views()
        self._ids.append([])
        self._size.append(0)
        return place

    def _move(self, place: int) -> None:
        """To a block of twice the size."""
        old, size = self._firsts[place], self._size[place]
        room = max(_FIRST_BLOCK, 2 * size)
        spare = self._spare_blocks.get(room)
        new = spare.pop() if spare else self._new_block(room)
        width = SEAT_FIELDS * 8
        self._seats[new * width : (new + size) * width] = self._seats[
            old * width : (old + size) * width
        ]
        if size:
            self._spare_blocks.setdefault(size, []).append(old)
        self._firsts[place] = new
        self._size[place] = room

    def _new_block(self, room: int) -> int:
        new = self._used_seats
        self._used_seats += room
        while self._used_seats * SEAT_FIELDS * 8 > len(self._seats):
            self._seats = self._seats + bytes(len(self._seats))
            self._views()
        return new

    def _views(self) -> None:
        self.terms: Long = np.frombuffer(self._terms, np.int64).reshape(-1, TERM_FIELDS)
        self.usd: Float = np.frombuffer(self._terms, np.float64).reshape(-1, TERM_FIELDS)
        """The same bytes, for the fields that are floating."""
        self.seats: Long = np.frombuffer(self._seats, np.int64).reshape(-1, SEAT_FIELDS)
        self._firsts = memoryview(self.first.data)
        self._counts = memoryview(self.count.data)
        self._versions = memoryview(self.version.data)
