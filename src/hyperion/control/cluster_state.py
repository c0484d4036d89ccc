"""What a cluster scheduler keeps: entities, and indexes that are one more fold of its records."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import arrays, cluster_laws, turns
from hyperion.control import records as r
from hyperion.control.job_indexes import JobIndexes, include
from hyperion.control.machine import key, split
from hyperion.control.occupancy import Occupancy, queue_of
from hyperion.control.queue import WaitingQueue
from hyperion.control.shapes import Shapes
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName, WindowId
from hyperion.model.job import Job, JobPhase, Secret
from hyperion.model.queue import Queue
from hyperion.model.sharing import Sharing
from hyperion.model.window import Window
from hyperion.placement.balanced import BALANCED
from hyperion.placement.calendar import Calendar
from hyperion.placement.fairness import History, need_of
from hyperion.placement.forecast import Forecast, Sketch
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.watched import Guarded, guarded


class ClusterState:
    """Plain dicts: the machine alone writes them, and only through ``apply``."""

    def __init__(self, policy: Guarded | None = None, quantum_ms: int = 0) -> None:
        self.jobs: dict[JobId, r.ClusterJob] = {}
        self.allocations: dict[AllocationId, Allocation] = {}
        self.nodes: dict[NodeId, r.NodeEntry] = {}
        self.secrets: dict[JobId, dict[str, Secret]] = {}
        self.marks: dict[str, r.Mark] = {}
        self.queues: dict[QueueName, Queue] = {}
        self.windows: dict[WindowId, Window] = {}
        self.occupancy = Occupancy(quantum_ms)
        self.policy = policy or guarded(BALANCED)
        self.queue = WaitingQueue(self.occupancy.tree, per_user=self.policy.per_user)
        self.calendar = Calendar(self.occupancy.running)
        self.forecast = Forecast()
        self.load_changed = True
        self.active_jobs = 0
        self.next_order = 1
        self._by_job: dict[JobId, set[AllocationId]] = {}
        self._by_node: dict[NodeId, set[AllocationId]] = {}
        self.noted = JobIndexes()
        self._history: r.HistoryKept | None = None
        self._sharing = Sharing()
        self._shapes = Shapes(self.occupancy.need_of_job)
        self._lost: dict[NodeId, int] = {}
        self.silent: set[NodeId] = set()
        self._dirty: set[str] = set()
        self._dirty_jobs: dict[JobId, None] = {}
        self._dirty_allocations: dict[AllocationId, None] = {}
        self._folds = self._make_folds()

    @property
    def snapshot(self) -> Snapshot:
        return self.occupancy.snapshot

    @property
    def running(self) -> Running:
        return self.occupancy.running

    @property
    def claims(self) -> dict[JobId, tuple[Allocation, ...]]:
        return self.occupancy.claims

    # -- the fold -------------------------------------------------------------------------------

    def apply(self, record: Struct) -> None:
        fold = self._folds.get(type(record))
        if fold is None:
            raise TypeError(record)
        fold(record)

    def _make_folds(self) -> dict[type, Callable[[Any], None]]:
        """By kind of record: a table, since this is asked several times for each job."""
        return {
            r.AllocationPlaced: self._fold_allocation,
            r.AllocationMoved: self._fold_allocation,
            r.JobMoved: self._fold_status,
            r.JobAccepted: self._fold_job,
            r.TaskEnded: self._fold_task,
            r.SecretsKept: self._fold_secrets,
            r.JobForgotten: self._fold_forgotten,
            r.MarkDropped: self._fold_mark,
            r.NodeAdmitted: self._apply_to_node,
            r.NodeMarked: self._apply_to_node,
            r.NodeForgotten: self._apply_to_node,
            r.QueuesKept: self._apply_rule,
            r.WindowKept: self._apply_rule,
            r.WindowDropped: self._apply_rule,
            r.HistoryKept: self._fold_history,
        }

    def _fold_allocation(self, record: r.AllocationPlaced | r.AllocationMoved) -> None:
        self._put_allocation(record.allocation)
        self._dirty_allocations[record.allocation.id] = None

    def _fold_status(self, record: r.JobMoved) -> None:
        known = self.jobs[record.job]
        status, before = record.status, known.status
        if status.attempt > before.attempt:
            self._drop_allocations(record.job)
        elif status.resizes > before.resizes:
            self._drop_given_up(record.job, before.width or known.job.replicas)
        known = replace(known, status=status)
        self._put_job(known)
        if status.phase is JobPhase.SUCCEEDED:
            self._learn(known)
        self._dirty_jobs[record.job] = None

    def _fold_job(self, record: r.JobAccepted) -> None:
        self._drop_allocations(record.job.id)
        self._put_job(self._accepted(record))
        self._dirty_jobs[record.job.id] = None

    def _fold_task(self, record: r.TaskEnded) -> None:
        a = record.allocation
        self._put_allocation(a)
        self._drop_allocation(a)
        self._put_job(replace(self.jobs[a.job], status=record.status))
        self._dirty_jobs[a.job] = None

    def _fold_secrets(self, record: r.SecretsKept) -> None:
        self.secrets[record.job] = record.secrets
        self._dirty.add(key("secret", record.job))

    def _fold_forgotten(self, record: r.JobForgotten) -> None:
        self._drop_job(record.job)
        self.marks[record.job] = r.Mark(record.generation, record.at_ms)
        self._dirty_jobs[record.job] = None
        self._dirty |= {key("mark", record.job), key("secret", record.job)}

    def _fold_mark(self, record: r.MarkDropped) -> None:
        self.marks.pop(record.name, None)
        self._dirty.add(key("mark", record.name))

    def _fold_history(self, record: r.HistoryKept) -> None:
        self._history = record
        self._dirty.add(key("history", "lately"))

    def _apply_to_node(self, record: r.NodeAdmitted | r.NodeMarked | r.NodeForgotten) -> None:
        match record:
            case r.NodeAdmitted(node):
                id, old = node.id, self.nodes.get(node.id)
                entry = (
                    r.NodeEntry(node=node) if old is None else replace(old, node=node, lost=False)
                )
                self._put_node(entry)
            case r.NodeMarked(id, cordoned, draining, lost, at_ms):
                if lost:
                    self._lost[id] = at_ms
                entry = replace(self.nodes[id], cordoned=cordoned, draining=draining, lost=lost)
                self._put_node(entry)
            case r.NodeForgotten(id):
                if not self.nodes[id].lost:
                    self.snapshot.remove_node(id)
                del self.nodes[id]
                self._lost.pop(id, None)
                self.silent.discard(id)
        self._dirty.add(key("node", id))

    def _apply_rule(self, record: r.QueuesKept | r.WindowKept | r.WindowDropped) -> None:
        match record:
            case r.QueuesKept(queues):
                self._dirty |= {key("queue", name) for name in self.queues}
                for name in self.queues.keys() - {queue.name for queue in queues}:
                    self.occupancy.tree.drop(name)
                self.queues = {queue.name: queue for queue in queues}
                self._dirty |= {key("queue", name) for name in self.queues}
                for queue in queues:
                    self.occupancy.tree.put(queue)
            case r.WindowKept(window):
                self.windows[window.id] = window
                self.calendar.put_window(window)
                self._dirty.add(key("window", window.id))
            case r.WindowDropped(window_id):
                self.windows.pop(window_id, None)
                self.calendar.drop_window(window_id)
                self._dirty.add(key("window", window_id))

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
        for _, value in found.get("queue", []):
            queue = _QUEUE.decode(value)
            self.queues[queue.name] = queue
            self.occupancy.tree.put(queue)
        for _, value in found.get("window", []):
            window = _WINDOW.decode(value)
            self.windows[window.id] = window
            self.calendar.put_window(window)
        for _, value in found.get("history", []):
            self._put_history(_HISTORY.decode(value))
        for _, value in found.get("job", []):
            known = _JOB.decode(value)
            status = self._sharing.value(known.status)
            self._put_job(replace(known, job=self._sharing.job(known.job), status=status))
        for _, value in found.get("allocation", []):
            self._put_allocation(_ALLOCATION.decode(value))

    def writes(self) -> dict[str, bytes | None]:
        out: dict[str, bytes | None] = {}
        encode = _ENCODER.encode
        for job in self._dirty_jobs:
            known = self.jobs.get(job)
            out[_JOB_KEY + job] = None if known is None else encode(known)
        for id in self._dirty_allocations:
            a = self.allocations.get(id)
            out[_ALLOCATION_KEY + id] = None if a is None else encode(a)
        for path in self._dirty:
            entity = self._entity(*split(path))
            out[path] = None if entity is None else encode(entity)
        for dirty in (self._dirty, self._dirty_jobs, self._dirty_allocations):
            dirty.clear()
        return out

    def _entity(self, kind: str, name: str) -> object | None:
        if kind == "history":
            return self._history
        kinds: dict[str, Mapping[Any, object]] = {
            "node": self.nodes,
            "secret": self.secrets,
            "mark": self.marks,
            "queue": self.queues,
            "window": self.windows,
        }
        return kinds[kind].get(name)

    # -- questions ------------------------------------------------------------------------------

    def whole(self, job: Job) -> Job:
        """The job with its secrets, as an agent needs it."""
        secrets = self.secrets.get(job.id)
        return replace(job, secrets=secrets) if secrets else job

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

    def withdraw(self, job: JobId) -> None:
        """Its promise is void: what was kept for it is there for others."""
        promise = self.calendar.promises.get(job)
        if promise is not None:
            self.occupancy.freed.update(node for node, _ in promise.seats)
            self.calendar.withdraw(job)

    @staticmethod
    def wants_place(known: r.ClusterJob) -> bool:
        """Whether it waits for nodes: for its first ones, or as an array for more."""
        if known.status.awaits:
            return False
        if known.job.array is not None:
            return arrays.wants_place(known)
        return known.status.phase is JobPhase.QUEUED

    def claimants_on(self, node: NodeId) -> list[JobId]:
        """Jobs for which a place on the node is being cleared."""
        return [job for job, held in self.claims.items() if any(a.node == node for a in held)]

    def live_on(self, node: NodeId) -> list[Allocation]:
        return [self.allocations[i] for i in sorted(self._by_node.get(node, ()))]

    def federated_active(self) -> list[JobId]:
        return self.noted.federated()

    def has_ready_nodes(self) -> bool:
        return any(not e.lost and n not in self.silent for n, e in self.nodes.items())

    def set_silent(self, node: NodeId, silent: bool) -> None:
        """Soft: whether its agent's stream is closed, so that nothing new goes there."""
        (self.silent.add if silent else self.silent.discard)(node)
        entry = self.nodes.get(node)
        if entry and not entry.lost:
            self.snapshot.set_schedulable(node, cordoned=entry.cordoned, silent=silent)
            self.load_changed = True

    def lost_before(self, node: NodeId, old_ms: int) -> bool:
        return self._lost.get(node, 0) <= old_ms

    def marks_before(self, old_ms: int, limit: int) -> list[str]:
        return [n for n, k in islice(self.marks.items(), limit) if k.at_ms <= old_ms]

    # -- what rounds ask --------------------------------------------------------------------------

    def ends_at_ms(self, known: r.ClusterJob, now_ms: int) -> int:
        """When it would end if it started now; 0 where nothing tells."""
        expected_ms = int(1000 * known.job.expected_s)
        return now_ms + expected_ms if expected_ms else 0

    def quota_room(self, known: r.ClusterJob, most: int) -> int:
        """How many more of its replicas its queue would take."""
        need = need_of(known.job.alternatives[known.status.alternative])
        return self.occupancy.tree.room(queue_of(known.job), need, most)

    def history(self, now_ms: int) -> r.HistoryKept:
        return r.HistoryKept(
            shares=msgspec.json.encode(self.occupancy.tree.history()),
            forecast=msgspec.json.encode(self.forecast.state()),
            at_ms=now_ms,
        )

    # -- indexes --------------------------------------------------------------------------------

    def _put_job(self, known: r.ClusterJob) -> None:
        id, status = known.job.id, known.status
        old = self.jobs.get(id)
        over = status.phase.is_terminal
        if old is None:
            self.active_jobs += not over
            self.next_order = max(self.next_order, known.order + 1)
        elif old.status.phase.is_terminal != over:
            self.active_jobs += -1 if over else 1
        self.jobs[id] = known
        waits = self.wants_place(known)
        if not waits:
            self.queue.remove(id)
        elif id not in self.queue:
            self._enqueue(known)
        elif old is not None and due_ms(old) != due_ms(known):
            self.queue.remove(id)
            self._enqueue(known)
        self.noted.note(old, known)
        if status.claim or id in self.occupancy.claims:
            self.occupancy.claim(known)
        if id in self.occupancy.running.occupants:
            self.occupancy.note(known)
        if not waits and id in self.calendar.promises:
            self.withdraw(id)
        self.load_changed = True

    def _accepted(self, record: r.JobAccepted) -> r.ClusterJob:
        status = r.JobStatus(
            generation=record.generation,
            version=record.version,
            tasks=record.tasks,
            checkpoints=record.checkpoints,
        )
        return r.ClusterJob(
            job=record.job,
            federated=record.federated,
            submitted_at_ms=record.submitted_at_ms,
            order=record.order,
            status=self._sharing.value(status),
        )

    def _enqueue(self, known: r.ClusterJob) -> None:
        job = known.job
        shape, need = self._shapes.of(job)
        self.queue.add(
            job.id,
            queue=queue_of(job),
            user=job.user,
            priority=job.priority,
            nice=job.nice,
            key=turns.key_of(self, known),
            order=known.order,
            shape=shape,
            need=need,
            not_before_ms=due_ms(known),
        )

    def _put_history(self, record: r.HistoryKept) -> None:
        self._history = record
        self.occupancy.tree.restore_history(_SHARES.decode(record.shares))
        self.forecast = Forecast(_SKETCHES.decode(record.forecast))

    def _learn(self, known: r.ClusterJob) -> None:
        """It ended well: its likes will take about as long."""
        status = known.status
        if status.phase is JobPhase.SUCCEEDED and status.started_at_ms and not known.job.array:
            self.forecast.learn(known.job, status.ended_at_ms - status.started_at_ms)

    def _drop_job(self, id: JobId) -> None:
        self._drop_allocations(id)
        known = self.jobs.pop(id, None)
        self.secrets.pop(id, None)
        if known is not None:
            self.active_jobs -= not known.status.phase.is_terminal
            self.queue.remove(id)
            self.noted.forget(known)
            self.calendar.withdraw(id)
            self.occupancy.unclaim(known)

    def _drop_allocations(self, job: JobId) -> None:
        for id in self._by_job.pop(job, ()):
            a = self.allocations.pop(id)
            if not a.state.is_terminal:
                self._release(a)
            self._dirty_allocations[id] = None

    def _drop_given_up(self, job: JobId, width: int) -> None:
        """An elastic job changes its number again: what it gave up before and has ended goes."""
        for a in self.attempt_of(job):
            if a.state.is_terminal and a.rank >= width:
                self._drop_allocation(a)

    def _drop_allocation(self, a: Allocation) -> None:
        del self.allocations[a.id]
        self._by_job[a.job].discard(a.id)
        self._dirty_allocations[a.id] = None

    def _put_allocation(self, a: Allocation) -> None:
        old = self.allocations.get(a.id)
        self.allocations[a.id] = a
        if old is None:
            include(self._by_job, a.job, a.id)
        held = old is not None and not old.state.is_terminal
        if not a.state.is_terminal:
            if not held:
                include(self._by_node, a.node, a.id)
                self.occupancy.seat(a, self.jobs[a.job])
                self.load_changed = True
            elif old is not None and old.state is not a.state:
                self.occupancy.moved(a)
        elif held:
            self._release(a)

    def _release(self, a: Allocation) -> None:
        self._by_node[a.node].discard(a.id)
        self.occupancy.unseat(a, self.jobs[a.job], on_node=not self.nodes[a.node].lost)
        self.load_changed = True

    def _put_node(self, entry: r.NodeEntry) -> None:
        id = entry.node.id
        old = self.nodes.get(id)
        was_there = old is not None and not old.lost
        self.nodes[id] = entry
        if entry.lost:
            if was_there:
                self.snapshot.remove_node(id)
        else:
            self._lost.pop(id, None)
            self.snapshot.add_node(entry.node)  # what it holds stays held
            silent = id in self.silent
            self.snapshot.set_schedulable(id, cordoned=entry.cordoned, silent=silent)
        self.load_changed = True

    def check(self) -> None:
        """Every law that must hold after every step; raises AssertionError."""
        cluster_laws.check(self)


def due_ms(known: r.ClusterJob) -> int:
    """From when on it may be placed."""
    job, status = known.job, known.status
    if job.array is None:
        return status.not_before_ms
    next_ms = arrays.next_due_ms(arrays.progress(status), job.array.size)
    return max(status.not_before_ms, next_ms)


_JOB_KEY = key("job", "")
_ALLOCATION_KEY = key("allocation", "")
_ENCODER = msgspec.json.Encoder()
_JOB = msgspec.json.Decoder(r.ClusterJob)
_ALLOCATION = msgspec.json.Decoder(Allocation)
_NODE = msgspec.json.Decoder(r.NodeEntry)
_HISTORY = msgspec.json.Decoder(r.HistoryKept)
_SHARES = msgspec.json.Decoder(dict[str, History])
_SKETCHES = msgspec.json.Decoder(tuple[Sketch, ...])
_QUEUE = msgspec.json.Decoder(Queue)
_WINDOW = msgspec.json.Decoder(Window)
_MARK = msgspec.json.Decoder(r.Mark)
_SECRETS = msgspec.json.Decoder(dict[str, Secret])
