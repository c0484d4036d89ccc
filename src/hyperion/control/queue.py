"""Who waits for a place, and whose turn it is.

Priority goes before everything. Within a priority the queue that has had the least for its weight
is next, level by level down the tree; within a queue the least nice, then the policy's order, then
who came first. A thousand alike cost one look: what does not fit, or is over its quota, is passed
over with all its likes until something has been freed that may help it.
"""

import heapq
from collections.abc import Hashable, Iterator
from math import isnan

from hyperion.control.lines import Bunch, Entry, Line, Urgency
from hyperion.control.patience import Patience
from hyperion.model.ids import JobId, QueueName
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.placement.fairness import Admission, Need, QueueTree
from hyperion.placement.usage import Branch

MAX_TOLD = 64
"""Jobs named for each reason that holds some back."""


class _Round:
    """What one pass has not looked at yet, as heaps that are made when a line's turn comes."""

    __slots__ = ("aside", "jobs", "lines", "told")

    def __init__(self) -> None:
        self.lines: dict[Line, list[tuple[float, tuple[int, str], Line]]] = {}
        """By line: those below it, by share."""
        self.jobs: dict[Line, list[tuple[Entry, Bunch]]] = {}
        """By line: the first of each bunch."""
        self.aside: list[Entry] = []
        self.told: set[JobId] = set()
        """One that has left and come back is not told twice."""


class WaitingQueue:
    """A fold over the jobs that wait. The tree tells it by itself what has been freed."""

    def __init__(self, tree: QueueTree | None = None, *, per_user: bool = False) -> None:
        """``per_user``: within a queue, users take turns as queues do."""
        self.tree = tree or QueueTree()
        self.blocked: dict[Hashable, str] = {}
        """Shapes that did not fit, each with the reason in words if one was given."""
        self._per_user = per_user
        self._waiting: dict[JobId, Entry] = {}
        self._urgencies: dict[int, Urgency] = {}
        """By priority, the most urgent first."""
        self._patience = Patience(self.tree, self._urgencies)
        self._later: list[tuple[int, int, JobId]] = []
        self._not_due: dict[JobId, int] = {}
        self._now_ms = 0
        self._revision = self.tree.revision

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job: object) -> bool:
        return job in self._waiting

    # -- coming and going -----------------------------------------------------------------------

    def add(
        self,
        job: JobId,
        *,
        priority: int,
        order: int,
        shape: Hashable,
        queue: str = "",
        user: str = "",
        nice: int = 0,
        key: float = 0.0,
        need: Need = (),
        not_before_ms: int = 0,
    ) -> None:
        """Jobs of one ``shape`` fit or do not fit together; ``key`` is the policy's order value.

        One whose queue does not exist waits until it is made, and is never a candidate meanwhile.
        """
        if job in self._waiting:
            return
        if self._revision != self.tree.revision:
            self._follow_tree()
        urgency = self._urgencies.get(priority) or self._add_urgency(priority)
        bunch = urgency.bunch(
            queue or DEFAULT_QUEUE, user, shape, need, blocked=shape in self.blocked
        )
        entry = (nice, float("inf") if isnan(key) else key, order, job, bunch)
        self._waiting[job] = entry
        urgency.size += 1
        bunch.size += 1
        if not_before_ms > self._now_ms:
            self._not_due[job] = not_before_ms
            heapq.heappush(self._later, (not_before_ms, order, job))
        else:
            self._arrive(urgency, entry)

    def remove(self, job: JobId) -> None:
        entry = self._waiting.pop(job, None)
        if entry is None:
            return
        bunch = entry[4]
        urgency = bunch.lane.urgency
        self._patience.gone(bunch)
        urgency.size -= 1
        bunch.size -= 1
        if self._not_due.pop(job, None) is None:
            urgency.went(bunch)
        if not bunch.size:
            self._discard(bunch)
        elif len(bunch.heap) > 64 and len(bunch.heap) > 2 * bunch.due:
            # Jobs that leave from behind one that never fits would stay in the heap for ever.
            bunch.heap[:] = [item for item in bunch.heap if self._waiting.get(item[3]) is item]
            heapq.heapify(bunch.heap)

    # -- passing over ---------------------------------------------------------------------------

    def block(self, shape: Hashable, reason: str = "") -> None:
        """Pass over the shape until ``unblock``."""
        lanes = [u.lanes[shape] for u in self._urgencies.values() if shape in u.lanes]
        if lanes:
            self.blocked[shape] = reason
        for lane in lanes:
            lane.urgency.block(lane, blocked=True)

    def shape_of(self, job: JobId) -> Hashable:
        """Under which it waits; it must."""
        return self._waiting[job][4].lane.shape

    def unblock_shape(self, shape: Hashable) -> None:
        """Only jobs of this shape may try again."""
        if self.blocked.pop(shape, None) is None:
            return
        for urgency in self._urgencies.values():
            lane = urgency.lanes.get(shape)
            if lane is not None:
                urgency.block(lane, blocked=False)

    def unblock(self) -> None:
        """There is room where there was none: every shape may try again."""
        for shape in self.blocked:
            for urgency in self._urgencies.values():
                lane = urgency.lanes.get(shape)
                if lane is not None:
                    urgency.block(lane, blocked=False)
        self.blocked.clear()

    def pass_over(self, job: JobId) -> None:
        """Pass over the job and its likes in its queue until something is given back in its cohort.

        For one that may reclaim, when nobody can be stopped for it, or somebody is stopping.
        """
        entry = self._waiting.get(job)
        if entry is None or job in self._not_due:
            return
        bunch = entry[4]
        self._take_changes()
        if bunch.line.branch is not None:
            urgency = bunch.lane.urgency
            top = bunch.line.branch.path[-1].queue.name
            urgency.shut(bunch, urgency.lines[top], "", 0, f"{bunch.line.queue}/{bunch.line.user}")
            refusal = self.tree.refusal(bunch.line.queue, bunch.need)
            if refusal is not None:
                self._patience.refused(bunch, refusal)

    def unblock_quota(self, queue: str = "") -> None:
        """Look again at all that the quotas of the queue's cohort have refused; or at everything.

        Only needed for what no charge to the tree tells, such as a victim that may now be stopped.
        """
        self._follow_tree()
        for urgency in self._urgencies.values():
            line = urgency.root
            if queue:
                found = urgency.lines.get(queue)
                if found is None or found.branch is None:
                    continue
                line = urgency.lines[found.branch.path[-1].queue.name]
            urgency.open_all(line)

    # -- questions ------------------------------------------------------------------------------

    def shapes_blocked(self) -> Iterator[tuple[Hashable, list[JobId]]]:
        """Each blocked shape that somebody waits for, with some of its jobs in no special order."""
        for shape in list(self.blocked):
            jobs: list[JobId] = []
            for urgency in self._urgencies.values():
                lane = urgency.lanes.get(shape)
                for bunch in lane.bunches if lane is not None else ():
                    jobs += self._some(bunch, MAX_TOLD - len(jobs))
                    if len(jobs) >= MAX_TOLD:
                        break
            if jobs:
                yield shape, jobs

    def over_quota(self) -> Iterator[tuple[QueueName, Need, list[JobId]]]:
        """Each need that the quotas refuse to a queue now, with some of the jobs that have it."""
        for urgency in list(self._urgencies.values()):
            for lane in list(urgency.lanes.values()):
                for bunch in list(lane.bunches):
                    if bunch.gate is not None and bunch.gate.closed:
                        jobs = self._some(bunch, MAX_TOLD)
                        yield QueueName(bunch.line.queue), bunch.need, jobs

    def next_due_ms(self, now_ms: int) -> bool:
        """Whether anybody waits who is not passed over and whose time has come."""
        self._settle(now_ms)
        return any(urgency.runnable for urgency in self._urgencies.values())

    def waiting_in(self, queue: str) -> int:
        """How many wait in this very queue."""
        lines = [u.lines[queue] for u in self._urgencies.values() if queue in u.lines]
        return sum(
            bunch.size
            for line in lines
            for leaf in line.leaves()
            if leaf.queue == queue
            for bunch in leaf.bunches.values()
        )

    def position_in_queue(self, job: JobId) -> int | None:
        """How many of its queue (with ``per_user``: of its user there) are before it.

        None: it does not wait.
        """
        mine = self._waiting.get(job)
        if mine is None:
            return None
        waiting = self._waiting
        return sum(
            entry < mine and waiting.get(entry[3]) is entry
            for bunch in mine[4].line.bunches.values()
            for entry in bunch.heap
        )

    def position(self, job: JobId) -> int | None:
        """How many are before it in all: more urgent ones, those before it in its queue, and as
        many of each other queue as its weight lets go first if all take turns from now on."""
        before = self.position_in_queue(job)
        if before is None:
            return None
        line = self._waiting[job][4].line
        mine = self._waiting[job][4].lane.urgency
        others = 0
        weight = line.branch.part if line.branch is not None else 1.0
        for leaf in mine.root.leaves():
            if leaf is not line and leaf.branch is not None:
                turns = int((before + 1) * leaf.branch.part / weight)
                others += min(turns, sum(bunch.size for bunch in leaf.bunches.values()))
        urgent = sum(u.size for u in self._urgencies.values() if u.priority > mine.priority)
        return urgent + before + others

    # -- whose turn it is -----------------------------------------------------------------------

    def candidates(self, now_ms: int) -> Iterator[tuple[JobId, Admission]]:
        """Jobs in the order in which they are to be tried. Each is yielded once, if ever.

        The caller may remove or add jobs, block shapes, pass over and charge between two steps.
        ``RECLAIM`` and ``DISPLACES`` mean that somebody would have to be stopped for it first; of
        its likes in the queue only one is yielded a round.
        """
        self._settle(now_ms)
        for urgency in list(self._urgencies.values()):
            if urgency.runnable:
                yield from self._turns(urgency)

    def _turns(self, urgency: Urgency) -> Iterator[tuple[JobId, Admission]]:
        this = _Round()
        try:
            while urgency.runnable:
                self.tree.settle()
                line = _next_line(urgency.root, this)
                if line is None:
                    return
                found = self._next_job(urgency, line, this)
                if found is not None:
                    yield found
                    if found[1].at_once:
                        entry = this.aside[-1]
                        started = self._waiting.get(found[0]) is not entry
                        self._patience.told(entry[4], self._now_ms, started=started)
        finally:
            for entry in this.aside:
                if self._waiting.get(entry[3]) is entry:
                    heapq.heappush(entry[4].heap, entry)

    def _next_job(
        self, urgency: Urgency, line: Line, this: _Round
    ) -> tuple[JobId, Admission] | None:
        """The first of a line that may be tried; None, and an empty heap, when there is none."""
        branch = line.branch
        assert branch is not None, "only lines of queues that exist have turns"
        heap = this.jobs.get(line)
        if heap is None:
            heap = this.jobs[line] = [
                (entry, bunch)
                for bunch in line.bunches.values()
                if bunch.due
                and not bunch.lane.blocked
                and (bunch.gate is None or not bunch.gate.closed)
                and (entry := self._head(bunch)) is not None
            ]
            heapq.heapify(heap)
        admit = self.tree.admit
        while heap:
            entry, bunch = heap[0]
            verdict: Admission | None = None
            if bunch.lane.blocked or (bunch.gate is not None and bunch.gate.closed):
                heapq.heappop(heap)
                continue
            held_at = self._patience.held_back(bunch)
            if held_at is not None:
                heapq.heappop(heap)
                self._take_changes()
                urgency.shut(bunch, urgency.lines[held_at], "", 0, "held back")
                continue
            head = self._head(bunch)
            if head is entry:
                if entry[3] not in this.told:
                    verdict = admit(branch, bunch.need, urgency.priority, entry[0])
                    if verdict is Admission.REFUSED:
                        heapq.heappop(heap)
                        self._shut(urgency, bunch, entry[0])
                        continue
                heapq.heappop(bunch.heap)
                this.aside.append(entry)
                this.told.add(entry[3])
                head = self._head(bunch)
            if head is None or (verdict is not None and not verdict.at_once):
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (head, bunch))
            if verdict is not None:
                return entry[3], verdict
        return None

    def _head(self, bunch: Bunch) -> Entry | None:
        heap, waiting = bunch.heap, self._waiting
        while heap and waiting.get(heap[0][3]) is not heap[0]:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _shut(self, urgency: Urgency, bunch: Bunch, nice: int) -> None:
        """The quota refuses it: it waits until there is as much room as it lacks."""
        self._take_changes()
        barrier = self.tree.barrier(bunch.line.queue, bunch.need, urgency.priority, nice)
        assert barrier is not None, f"{bunch.line.queue} was refused for nothing"
        urgency.shut(bunch, urgency.lines[barrier.queue], barrier.resource, barrier.asked)
        self._patience.refused(bunch, barrier)

    # -- inside ---------------------------------------------------------------------------------

    def _arrive(self, urgency: Urgency, entry: Entry) -> None:
        """Its time has come."""
        bunch = entry[4]
        heapq.heappush(bunch.heap, entry)
        urgency.came(bunch)
        branch = bunch.line.branch
        if (
            bunch.gate is not None
            and branch is not None
            and branch.queue.preempt_within
            and bunch.heap[0] is entry
        ):
            urgency.release(bunch)  # one less nice may displace more

    def _discard(self, bunch: Bunch) -> None:
        shape = bunch.lane.shape
        last = bunch.lane.urgency.discard(bunch) and shape in self.blocked
        if last and not any(shape in u.lanes for u in self._urgencies.values()):
            del self.blocked[shape]

    def _add_urgency(self, priority: int) -> Urgency:
        made = Urgency(priority, self.tree, per_user=self._per_user)
        ordered = sorted([*self._urgencies.items(), (priority, made)], reverse=True)
        self._urgencies.clear()
        self._urgencies.update(ordered)
        return made

    def _some(self, bunch: Bunch, most: int) -> list[JobId]:
        """Jobs whose time has come."""
        return [e[3] for e in bunch.heap[:most] if self._waiting.get(e[3]) is e]

    def _settle(self, now_ms: int) -> None:
        """Take in what has happened since the last look: time, new quotas, what was given back."""
        self._now_ms = max(self._now_ms, now_ms)
        later = self._later
        while later and later[0][0] <= self._now_ms:
            due_ms, _, job = heapq.heappop(later)
            if self._not_due.get(job) == due_ms:
                del self._not_due[job]
                entry = self._waiting[job]
                self._arrive(entry[4].lane.urgency, entry)
        if len(later) > 64 and len(later) > 2 * len(self._not_due):
            later[:] = [item for item in later if self._not_due.get(item[2]) == item[0]]
            heapq.heapify(later)
        self._follow_tree()
        if self.tree.refresh(self._now_ms, alone=len(self._waiting) <= 1):
            for urgency in self._urgencies.values():
                urgency.renew_users()
        self._patience.expire(self._now_ms)
        self._take_changes()

    def _follow_tree(self) -> None:
        if self._revision != self.tree.revision:
            self._revision = self.tree.revision
            self._patience.clear()
            for urgency in self._urgencies.values():
                urgency.hang_anew()

    def _take_changes(self) -> None:
        """To be done before a gate is closed: what was given back earlier must not open it."""
        for branch, given_back in self.tree.changed():
            for urgency in self._urgencies.values():
                if given_back:
                    self._reopen(urgency, branch)
                if branch.holders and (line := urgency.lines.get(branch.queue.name)) is not None:
                    self._let_displace(urgency, line, branch)

    def _reopen(self, urgency: Urgency, branch: Branch) -> None:
        """Open the gates for which there is room now, and let out those who may have new rights."""
        for above in branch.path:
            line = urgency.lines.get(above.queue.name)
            if line is None:
                continue
            for resource in line.closed:
                column = self.tree.column(resource)
                room = 0 if column is None else above.limit[column] - above.used[column]
                urgency.open(line, resource, room)
            if above is not branch.path[-1]:
                self._let_out(urgency, line, above)

    def _let_out(self, urgency: Urgency, line: Line, branch: Branch) -> None:
        """Those below a line who wait for one above it, where it has room of its own again."""
        for leaf in line.leaves():
            for bunch in leaf.bunches.values():
                gate = bunch.gate
                if gate is None or not gate.closed or gate.line is leaf or gate.line is line:
                    continue
                column = self.tree.column(gate.resource)
                if column is not None and branch.used[column] < branch.subtree[column]:
                    urgency.release(bunch)

    def _let_displace(self, urgency: Urgency, line: Line, branch: Branch) -> None:
        """Those who may take the place of what their own queue holds, which is another amount."""
        for leaf in line.leaves():
            for bunch in leaf.bunches.values():
                gate = bunch.gate
                if gate is None or not gate.closed or not bunch.heap or leaf.branch is not branch:
                    continue
                column, nice = self.tree.column(gate.resource), bunch.heap[0][0]
                if column is not None and branch.less_urgent(column, urgency.priority, nice):
                    urgency.release(bunch)


def _next_line(root: Line, this: _Round) -> Line | None:
    """The line whose turn it is, of those in which this round has not looked at all jobs."""
    above = root
    while True:
        heap = this.lines.get(above)
        if heap is None:
            heap = [(line.usage.share, line.tie, line) for line in above.active]
            heapq.heapify(heap)
            this.lines[above] = heap
        while heap:
            share, tie, line = heap[0]
            if line.live <= 0 or (this.lines if line.below else this.jobs).get(line) == []:
                heapq.heappop(heap)
            elif line.usage.share > share:
                heapq.heapreplace(heap, (line.usage.share, tie, line))
            else:
                break
        else:
            if above is root:
                return None
            above = root  # which now finds that one exhausted
            continue
        if not line.below:
            return line
        above = line
