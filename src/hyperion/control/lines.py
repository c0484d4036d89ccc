"""The lines in which jobs wait: one a queue and priority, with gates that close where quota ends.

Whatever is alike in all that decides (queue, user, priority, shape and need) stands in one bunch. A
bunch that the quota refuses waits behind a gate at the queue whose limit it was; the gate is shared
by all to whom the same limit says the same, so that one look closes or opens it for all of them.
Each line knows how many of its bunches no gate below it holds back, so that nobody looks in vain.
"""

import heapq
from collections.abc import Hashable, Iterator

from hyperion.model.ids import JobId
from hyperion.placement.fairness import Need, QueueTree
from hyperion.placement.usage import Branch, Usage

Entry = tuple[int, float, int, JobId, "Bunch"]
"""Nice, the policy's key, order of arrival: the least goes first."""


class Bunch:
    """Jobs that nothing but their rank tells apart."""

    __slots__ = (
        "doublings", "due", "gate", "heap", "lane", "line", "need", "number", "patient_at",
        "since", "size",
    )  # fmt: skip

    def __init__(self, line: "Line", lane: "Lane", need: Need, number: int) -> None:
        self.line = line
        self.lane = lane
        self.need = need
        self.number = number
        self.heap: list[Entry] = []
        """Those whose time has come; entries of jobs that have left remain until they surface."""
        self.size = 0
        self.due = 0
        self.gate: Gate | None = None
        self.patient_at: Line | None = None
        """The top of the cohort, where it is counted how many start before it."""
        self.since = 0
        self.doublings = 0

    def __lt__(self, other: "Bunch") -> bool:
        """Settles a tie between a job that left and the same when it had come back."""
        return self.number < other.number

    def calm(self) -> None:
        """It need not be patient any more."""
        if self.patient_at is not None:
            del self.patient_at.patient[self]
            self.patient_at = None


class Lane:
    """All bunches of one shape and priority: what blocks the shape blocks the lane."""

    __slots__ = ("blocked", "bunches", "open", "shape", "urgency")

    def __init__(self, urgency: "Urgency", shape: Hashable, *, blocked: bool) -> None:
        self.urgency = urgency
        self.shape = shape
        self.blocked = blocked
        self.bunches: dict[Bunch, None] = {}
        self.open = 0
        """Bunches with somebody whose time has come, and no closed gate before them."""


class Gate:
    """Behind it wait bunches of one lane until a queue has so much room of a resource."""

    __slots__ = ("closed", "key", "lane", "line", "members", "resource", "ticket")

    def __init__(self, line: "Line", lane: Lane, key: Hashable, resource: str) -> None:
        self.line = line
        self.resource = resource
        """Empty: it opens whenever anything is given back below the line."""
        self.lane = lane
        self.key = key
        self.closed = False
        self.members: dict[Bunch, None] = {}
        self.ticket = 0
        """Of its entry in the line's heap."""


class Line:
    """Those who wait in a queue, or below it, with one priority; or those of one user there."""

    __slots__ = (
        "above", "active", "admitted", "below", "branch", "bunches", "closed", "gates", "live",
        "patient", "queue", "tie", "usage", "user",
    )  # fmt: skip

    def __init__(
        self,
        queue: str,
        user: str,
        above: "Line | None",
        branch: Branch | None,
        usage: Usage | None,
        tie: tuple[int, str],
    ) -> None:
        self.queue = queue
        self.user = user
        self.above = above
        self.branch = branch
        """None: there is no such queue any more."""
        self.usage = usage or Usage(0)
        self.tie = tie
        """Who is first of two that have had the same."""
        self.below: dict[str, Line] = {}
        self.active: dict[Line, None] = {}
        """Those below with somebody to look at."""
        self.bunches: dict[Hashable, Bunch] = {}
        self.gates: dict[Hashable, Gate] = {}
        self.closed: dict[str, list[tuple[int, int, Gate]]] = {}
        """Closed gates by resource: a heap by how much room opens them."""
        self.admitted = 0
        """At the top of a cohort: how many of this priority or less have started below it."""
        self.patient: dict[Bunch, None] = {}
        """There, too: who is refused, in the order of their first refusals."""
        self.live = 0
        """Bunches here and below that are due and not held back by a gate here or below."""

    def count(self, by: int) -> None:
        """So many more bunches can be looked at, as far as this line and those above it know."""
        line: Line | None = self
        while line is not None:
            line.live += by
            above = line.above
            if above is not None:
                if line.live <= 0:
                    above.active.pop(line, None)
                else:
                    above.active[line] = None
            line = above

    def leaves(self) -> "Iterator[Line]":
        """The lines here and below in which jobs stand."""
        if self.bunches:
            yield self
        for line in self.below.values():
            yield from line.leaves()


class Urgency:
    """All who wait with one priority."""

    def __init__(self, priority: int, tree: QueueTree, *, per_user: bool) -> None:
        self.priority = priority
        self.size = 0
        self.runnable = 0
        """Bunches that are due, with no closed gate and no blocked shape before them."""
        self.lanes: dict[Hashable, Lane] = {}
        self._tree = tree
        self._per_user = per_user
        self._made = 0
        self._reset()

    def _reset(self) -> None:
        self.root = Line("", "", None, None, None, (0, ""))
        self.lines: dict[str, Line] = {}
        self.runnable = 0

    # -- coming and going -----------------------------------------------------------------------

    def bunch(self, queue: str, user: str, shape: Hashable, need: Need, *, blocked: bool) -> Bunch:
        """That in which such a job stands."""
        line = self._line(queue, user)
        found = line.bunches.get((shape, need))
        if found is None:
            lane = self.lanes.get(shape)
            if lane is None:
                lane = self.lanes[shape] = Lane(self, shape, blocked=blocked)
            self._made += 1
            found = line.bunches[shape, need] = Bunch(line, lane, need, self._made)
            lane.bunches[found] = None
        return found

    def came(self, bunch: Bunch) -> None:
        """One more is due in it."""
        bunch.due += 1
        if bunch.due == 1:
            self._show(bunch)

    def went(self, bunch: Bunch) -> None:
        """One less is due in it."""
        bunch.due -= 1
        if not bunch.due:
            bunch.calm()
            self.release(bunch)
            bunch.line.count(-1)
            self._tally(bunch.lane, -1)

    def discard(self, bunch: Bunch) -> bool:
        """It is empty. True: it was the last of its shape here."""
        line, lane = bunch.line, bunch.lane
        del line.bunches[lane.shape, bunch.need]
        del lane.bunches[bunch]
        if not line.bunches and line.above is not None:
            line.above.below.pop(f"/{line.user}", None)
        if lane.bunches:
            return False
        del self.lanes[lane.shape]
        return True

    def block(self, lane: Lane, *, blocked: bool) -> None:
        if lane.blocked != blocked:
            lane.blocked = blocked
            self.runnable += -lane.open if blocked else lane.open

    def _show(self, bunch: Bunch) -> None:
        bunch.line.count(1)
        self._tally(bunch.lane, 1)
        if bunch.line.branch is None:
            self.shut(bunch, bunch.line, "", 0)

    def _tally(self, lane: Lane, by: int) -> None:
        lane.open += by
        if not lane.blocked:
            self.runnable += by

    # -- lines ----------------------------------------------------------------------------------

    def _line(self, queue: str, user: str) -> Line:
        line = self.lines.get(queue)
        if line is None:
            line = self._new_line(queue)
        if not self._per_user and (line.branch is None or not line.branch.children):
            return line
        key = f"/{user}" if self._per_user else "/"
        found = line.below.get(key)
        if found is None:
            usage: Usage | None = line.branch
            if line.branch is not None and self._per_user:
                usage = self._tree.user(queue, user)
            found = line.below[key] = Line(queue, user, line, line.branch, usage, (0, key))
        return found

    def _new_line(self, queue: str) -> Line:
        if queue not in self._tree:
            line = self.lines[queue] = Line(queue, "", None, None, None, (0, ""))
            return line
        above = self.root
        for branch in reversed(self._tree.branch(queue).path):
            name = branch.queue.name
            known = self.lines.get(name)
            if known is None:
                known = Line(name, "", above, branch, branch, (branch.number, ""))
                self.lines[name] = above.below[name] = known
            above = known
        return above

    def renew_users(self) -> None:
        """Look up again what each user has had: the tree may have forgotten those long idle."""
        if self._per_user:
            for line in self.lines.values():
                for below in line.below.values():
                    if below.queue == line.queue and line.branch is not None:
                        below.usage = self._tree.user(line.queue, below.user)

    def hang_anew(self) -> None:
        """The tree has changed: every bunch goes where it belongs now, and is looked at again."""
        bunches = [bunch for lane in self.lanes.values() for bunch in lane.bunches]
        self._reset()
        for lane in self.lanes.values():
            lane.open = 0
        for bunch in bunches:
            bunch.gate = bunch.patient_at = None
            bunch.line = self._line(bunch.line.queue, bunch.line.user)
            bunch.line.bunches[bunch.lane.shape, bunch.need] = bunch
            if bunch.due:
                self._show(bunch)

    # -- gates ----------------------------------------------------------------------------------

    def shut(self, bunch: Bunch, at: Line, resource: str, amount: int, mark: str = "") -> None:
        """It, and all behind the same gate, wait until ``at`` has so much room."""
        key = (bunch.lane.shape, resource, amount, mark)
        gate = bunch.gate
        if gate is None or gate.line is not at or gate.key != key:
            self.release(bunch)
            gate = at.gates.get(key)
            if gate is None:
                gate = at.gates[key] = Gate(at, bunch.lane, key, resource)
            gate.members[bunch] = None
            bunch.gate = gate
            if gate.closed:
                at.count(-1)
                self._tally(bunch.lane, -1)
        if not gate.closed:
            gate.closed = True
            self._flip(gate, -1)
            self._made += 1
            gate.ticket = self._made
            heap = at.closed.setdefault(resource, [])
            if len(heap) > 64 and len(heap) > 2 * len(at.gates):
                heap[:] = [item for item in heap if _stands(item)]
                heapq.heapify(heap)
            heapq.heappush(heap, (amount, gate.ticket, gate))

    def release(self, bunch: Bunch) -> None:
        """It leaves its gate, and will be looked at by itself."""
        gate = bunch.gate
        if gate is None:
            return
        bunch.gate = None
        del gate.members[bunch]
        if gate.closed:
            gate.line.count(1)
            self._tally(gate.lane, 1)
        if not gate.members:
            del gate.line.gates[gate.key]
            gate.closed = False

    def open(self, line: Line, resource: str, room: int) -> None:
        """Open the gates at a line for which so much room is enough."""
        heap = line.closed.get(resource)
        while heap and (heap[0][0] <= room or not _stands(heap[0])):
            item = heapq.heappop(heap)
            if _stands(item):
                self._open(item[2])

    def open_all(self, line: Line) -> None:
        """Open every gate at a line and below it."""
        for gate in list(line.gates.values()):
            if gate.closed:
                self._open(gate)
        for below in line.below.values():
            self.open_all(below)

    def _open(self, gate: Gate) -> None:
        gate.closed = False
        self._flip(gate, 1)

    def _flip(self, gate: Gate, sign: int) -> None:
        gate.line.count(sign * len(gate.members))
        self._tally(gate.lane, sign * len(gate.members))


def _stands(item: tuple[int, int, Gate]) -> bool:
    return item[2].closed and item[2].ticket == item[1]
