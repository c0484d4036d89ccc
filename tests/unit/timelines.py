"""Words for tests about time: a small cluster, what runs on it until when, who waits."""

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId, NodeId, QueueName, UserId, WindowId, allocation_id
from hyperion.model.job import Job, Priority
from hyperion.model.node import Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.model.window import Window
from hyperion.placement import snapshot as columns
from hyperion.placement.calendar import Calendar
from hyperion.placement.planner import Plan, Wish, plan
from hyperion.placement.ranking import BUILT_IN
from hyperion.placement.running import Occupant, Running

NOW_MS = 1_000_000
BALANCED = BUILT_IN["balanced"]


def node(name, gpus=0, cpus=8, **labels):
    return Node(
        id=NodeId(name),
        capacity=Capacity(
            gpus=gpus, gpu_type="A100" if gpus else "", cpus_milli=cpus * 1000, memory_mib=65_536
        ),
        labels=labels,
    )


def job(name, cpus=1, gpus=0.0, replicas=1, **more):
    request = ResourceRequest(cpus_milli=int(cpus * 1000), gpus_milli=int(gpus * 1000))
    more.setdefault("alternatives", (request,))
    return Job(id=JobId(name), run="x", replicas=replicas, **more)


def window(name, begins_s, ends_s, *nodes, queues=(), users=()):
    return Window(
        id=WindowId(name),
        begins_at_ms=NOW_MS + begins_s * 1000,
        ends_at_ms=NOW_MS + ends_s * 1000,
        nodes=tuple(NodeId(n) for n in nodes),
        queues=tuple(QueueName(q) for q in queues),
        users=tuple(UserId(u) for u in users),
    )


class Cluster:
    """A snapshot, what runs in it, a calendar, and a clock that the test moves."""

    def __init__(self, *nodes, unknown_s=3600):
        self.snapshot = columns.empty()
        for made in nodes:
            self.snapshot.add_node(made)
        self.running = Running()
        self.calendar = Calendar(self.running, unknown_s * 1000)
        self.now_ms = NOW_MS
        self.jobs = {}

    def wish(self, job, runs_s=0, **more):
        ends_ms = self.now_ms + runs_s * 1000 if runs_s else 0
        return Wish(job, at_least=job.least_replicas, ends_at_ms=ends_ms, **more)

    def plan(self, job, runs_s=0):
        return plan(self.snapshot, self.wish(job, runs_s), BALANCED, self.calendar, self.now_ms)

    def start(self, job, runs_s=0, on=None):
        """By the planner and within what the calendar allows; None when there is no place."""
        found = self.plan(job, runs_s) if on is None else self._plan_on(job, on)
        if not isinstance(found, Plan):
            return None
        self.seat(job, found, runs_s)
        return found

    def seat(self, job, found, runs_s=0, started_s=None):
        started_ms = self.now_ms if started_s is None else NOW_MS + started_s * 1000
        self.jobs[job.id] = job
        self.running.put(
            Occupant(
                job=job.id,
                queue=job.queue,
                priority=job.priority,
                started_at_ms=started_ms,
                ends_at_ms=started_ms + runs_s * 1000 if runs_s else 0,
                array=job.array is not None,
            )
        )
        for rank, seat in enumerate(found.seats):
            made = Allocation(
                id=allocation_id(job.id, 1, 1, rank),
                job=job.id,
                rank=rank,
                node=seat.node,
                request=job.request(rank, found.alternative),
                devices=seat.devices,
            )
            self.snapshot.hold(made, job)
            self.running.seat(made)

    def end(self, id):
        for seat in list(self.running.seats(id)):
            self.snapshot.drop(seat)
            self.running.unseat(seat)
        self.running.drop(id)

    def later(self, seconds):
        self.now_ms += seconds * 1000

    def _plan_on(self, job, name):
        """On one node, whatever the calendar says."""
        alone = columns.empty()
        row = self.snapshot.row[NodeId(name)]
        alone.add_node(self.snapshot.nodes[row])
        for held in self.snapshot.held(NodeId(name)):
            alone.hold(held)
        return plan(alone, job, BALANCED)


URGENT = Priority.LATENCY_CRITICAL
