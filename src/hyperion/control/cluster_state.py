"""What a cluster scheduler keeps: entities, and indexes that are one more fold of its records."""

from collections.abc import Hashable, Iterable
from itertools import islice

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import records as r
from hyperion.control.machine import key, split
from hyperion.control.queue import WaitingQueue
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Job, JobPhase, Secret
from hyperion.placement import snapshot as columns
from hyperion.placement.choice import shape_key


class ClusterState:
    """Plain dicts: the machine alone writes them, and only through ``apply``."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, r.ClusterJob] = {}
        self.allocations: dict[AllocationId, Allocation] = {}
        self.nodes: dict[NodeId, r.NodeEntry] = {}
        self.secrets: dict[JobId, dict[str, Secret]] = {}
        self.marks: dict[str, r.Mark] = {}
        self.snapshot = columns.empty()
        self.queue = WaitingQueue()
        self.load_changed = True
        self.active_jobs = 0
        self.next_order = 1
        self._by_job: dict[JobId, set[AllocationId]] = {}
        self._by_node: dict[NodeId, set[AllocationId]] = {}
        self._ended: dict[JobId, int] = {}
        self._lost: dict[NodeId, int] = {}
        self._silent: set[NodeId] = set()
        self._dirty: set[str] = set()

    # -- the fold -------------------------------------------------------------------------------

    def apply(self, record: Struct) -> None:
        match record:
            case r.AllocationPlaced(a) | r.AllocationMoved(a):
                self._put_allocation(a)
                self._dirty.add(key("allocation", a.id))
            case r.JobMoved(job_id, status):
                known = self.jobs[job_id]
                if status.attempt > known.status.attempt:
                    self._drop_allocations(job_id)
                self._put_job(replace(known, status=status))
                self._dirty.add(key("job", job_id))
            case r.JobAccepted():
                self._drop_allocations(record.job.id)
                self._put_job(_accepted(record))
                self._dirty.add(key("job", record.job.id))
            case r.SecretsKept(job_id, secrets):
                self.secrets[job_id] = secrets
                self._dirty.add(key("secret", job_id))
            case r.JobForgotten(job_id, generation, at_ms):
                self._drop_job(job_id)
                self.marks[job_id] = r.Mark(generation, at_ms)
                self._dirty |= {key("job", job_id), key("mark", job_id), key("secret", job_id)}
            case r.MarkDropped(name):
                self.marks.pop(name, None)
                self._dirty.add(key("mark", name))
            case r.NodeAdmitted(node):
                old = self.nodes.get(node.id)
                entry = (
                    r.NodeEntry(node=node) if old is None else replace(old, node=node, lost=False)
                )
                self._put_node(entry)
                self._dirty.add(key("node", node.id))
            case r.NodeMarked(node_id, cordoned, draining, lost, at_ms):
                if lost:
                    self._lost[node_id] = at_ms
                entry = replace(
                    self.nodes[node_id], cordoned=cordoned, draining=draining, lost=lost
                )
                self._put_node(entry)
                self._dirty.add(key("node", node_id))
            case r.NodeForgotten(node_id):
                self._take_from_snapshot(node_id)
                del self.nodes[node_id]
                self._dirty.add(key("node", node_id))
            case _:
                raise TypeError(record)

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Nodes first, since what they hold is counted against them."""
        found: dict[str, list[tuple[str, bytes]]] = {}
        for path, value in items:
            kind, name = split(path)
            found.setdefault(kind, []).append((name, value))
        for _, value in found.get("node", []):
            entry = _NODE.decode(value)
            self._put_node(entry)
            if not entry.lost:
                self.set_silent(entry.node.id, True)  # until it attaches
        for name, value in found.get("secret", []):
            self.secrets[JobId(name)] = _SECRETS.decode(value)
        for name, value in found.get("mark", []):
            self.marks[name] = _MARK.decode(value)
        for _, value in found.get("job", []):
            self._put_job(_JOB.decode(value))
        for _, value in found.get("allocation", []):
            self._put_allocation(_ALLOCATION.decode(value))

    def writes(self) -> dict[str, bytes | None]:
        out: dict[str, bytes | None] = {}
        for path in self._dirty:
            kind, name = split(path)
            entity = self._entity(kind, name)
            out[path] = None if entity is None else msgspec.json.encode(entity)
        self._dirty.clear()
        return out

    def _entity(self, kind: str, name: str) -> object | None:
        match kind:
            case "job":
                return self.jobs.get(JobId(name))
            case "allocation":
                return self.allocations.get(AllocationId(name))
            case "node":
                return self.nodes.get(NodeId(name))
            case "secret":
                return self.secrets.get(JobId(name))
            case "mark":
                return self.marks.get(name)
        raise KeyError(kind)

    # -- questions ------------------------------------------------------------------------------

    def whole(self, job: Job) -> Job:
        """The job with its secrets, as an agent needs it."""
        secrets = self.secrets.get(job.id)
        return replace(job, secrets=secrets) if secrets else job

    def shape(self, job: Job) -> Hashable:
        return shape_key(job)

    @staticmethod
    def moved(known: r.ClusterJob, now_ms: int, **changes: object) -> r.JobMoved:
        """The record of a change to a job's status: one version on."""
        version = known.status.version + 1
        return r.JobMoved(known.job.id, replace(known.status, version=version, **changes), now_ms)

    def attempt_of(self, job: JobId) -> list[Allocation]:
        """The replicas of the newest attempt, by rank."""
        found = [self.allocations[i] for i in self._by_job.get(job, ())]
        return sorted(found, key=lambda a: a.rank) if len(found) > 1 else found

    def live_of(self, job: JobId) -> list[Allocation]:
        return [a for a in self.attempt_of(job) if not a.state.is_terminal]

    def live_on(self, node: NodeId) -> list[Allocation]:
        return [self.allocations[i] for i in sorted(self._by_node.get(node, ()))]

    def federated_active(self) -> list[JobId]:
        if not self.active_jobs:
            return []
        return [j for j, x in self.jobs.items() if x.federated and not x.status.phase.is_terminal]

    def has_ready_nodes(self) -> bool:
        return any(not e.lost and n not in self._silent for n, e in self.nodes.items())

    def is_silent(self, node: NodeId) -> bool:
        return node in self._silent

    def set_silent(self, node: NodeId, silent: bool) -> None:
        """Soft: whether its agent's stream is closed, so that nothing new goes there."""
        (self._silent.add if silent else self._silent.discard)(node)
        entry = self.nodes.get(node)
        if entry and not entry.lost:
            self.snapshot.set_schedulable(node, cordoned=entry.cordoned, silent=silent)
            self.load_changed = True

    def ended_before(self, old_ms: int, limit: int) -> list[JobId]:
        """Ended jobs of the cluster's own API; the federation's are forgotten on its word."""
        return [j for j, at in islice(self._ended.items(), limit) if at <= old_ms]

    def lost_before(self, node: NodeId, old_ms: int) -> bool:
        return self._lost.get(node, 0) <= old_ms

    def marks_before(self, old_ms: int, limit: int) -> list[str]:
        return [n for n, k in islice(self.marks.items(), limit) if k.at_ms <= old_ms]

    # -- indexes --------------------------------------------------------------------------------

    def _put_job(self, known: r.ClusterJob) -> None:
        id, status = known.job.id, known.status
        old = self.jobs.get(id)
        self.active_jobs -= old is not None and not old.status.phase.is_terminal
        self.active_jobs += not status.phase.is_terminal
        self.jobs[id] = known
        self.next_order = max(self.next_order, known.order + 1)
        if status.phase is JobPhase.QUEUED:
            if id not in self.queue:
                self.queue.add(
                    id,
                    priority=known.job.priority,
                    order=known.order,
                    shape=self.shape(known.job),
                    not_before_ms=status.not_before_ms,
                )
        else:
            self.queue.remove(id)
        if status.phase.is_terminal and not known.federated:
            self._ended[id] = status.ended_at_ms
        self.load_changed = True

    def _drop_job(self, id: JobId) -> None:
        self._drop_allocations(id)
        known = self.jobs.pop(id, None)
        self.secrets.pop(id, None)
        self._ended.pop(id, None)
        if known is not None:
            self.active_jobs -= not known.status.phase.is_terminal
            self.queue.remove(id)

    def _drop_allocations(self, job: JobId) -> None:
        for id in self._by_job.pop(job, ()):
            a = self.allocations.pop(id)
            if not a.state.is_terminal:
                self._release(a)
            self._dirty.add(key("allocation", id))

    def _put_allocation(self, a: Allocation) -> None:
        old = self.allocations.get(a.id)
        self.allocations[a.id] = a
        if old is None:
            self._by_job.setdefault(a.job, set()).add(a.id)
        held = old is not None and not old.state.is_terminal
        if not a.state.is_terminal:
            if not held:
                self._by_node.setdefault(a.node, set()).add(a.id)
                self.snapshot.hold(a)
                self.load_changed = True
        elif held:
            self._release(a)

    def _release(self, a: Allocation) -> None:
        self._by_node[a.node].discard(a.id)
        if not self.nodes[a.node].lost:
            self.snapshot.drop(a)
        self.load_changed = True

    def _put_node(self, entry: r.NodeEntry) -> None:
        id = entry.node.id
        old = self.nodes.get(id)
        changed = old is None or old.node != entry.node or old.lost != entry.lost
        if changed and old is not None:
            self._take_from_snapshot(id)
        self.nodes[id] = entry
        if not entry.lost:
            self._lost.pop(id, None)
            if changed:
                self.snapshot.add_node(entry.node)
                for a in self.live_on(id):
                    self.snapshot.hold(a)
            silent = id in self._silent
            self.snapshot.set_schedulable(id, cordoned=entry.cordoned, silent=silent)
        self.load_changed = True

    def _take_from_snapshot(self, id: NodeId) -> None:
        if not self.nodes[id].lost:
            self.snapshot.remove_node(id)

    def check(self) -> None:
        """Every law that must hold after every step; raises AssertionError."""
        for a in self.allocations.values():
            assert a.job in self.jobs, f"{a.id} belongs to no job"
            if not a.state.is_terminal:
                assert not self.nodes[a.node].lost, f"{a.id} is alive on the lost node {a.node}"
                phase = self.jobs[a.job].status.phase
                assert phase in _WITH_REPLICAS, f"{a.id} is alive while its job is {phase}"
        for id, known in self.jobs.items():
            waits = known.status.phase is JobPhase.QUEUED
            assert (id in self.queue) == waits, f"{id} is {known.status.phase} but queue disagrees"
        held = (a for a in self.allocations.values() if not a.state.is_terminal)
        live = [e for e in self.nodes.values() if not e.lost]
        rebuilt = columns.rebuild([e.node for e in live], held)
        for e in live:
            silent = e.node.id in self._silent
            rebuilt.set_schedulable(e.node.id, cordoned=e.cordoned, silent=silent)
        assert rebuilt == self.snapshot, "the planner's columns differ from the state"


_WITH_REPLICAS = (JobPhase.STARTING, JobPhase.RUNNING, JobPhase.STOPPING)
_JOB = msgspec.json.Decoder(r.ClusterJob)
_ALLOCATION = msgspec.json.Decoder(Allocation)
_NODE = msgspec.json.Decoder(r.NodeEntry)
_MARK = msgspec.json.Decoder(r.Mark)
_SECRETS = msgspec.json.Decoder(dict[str, Secret])


def _accepted(record: r.JobAccepted) -> r.ClusterJob:
    return r.ClusterJob(
        job=record.job,
        federated=record.federated,
        submitted_at_ms=record.submitted_at_ms,
        order=record.order,
        status=r.JobStatus(generation=record.generation, version=record.version),
    )
