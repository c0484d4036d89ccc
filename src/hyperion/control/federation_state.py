"""What a federation keeps: its jobs and clusters, and the indexes folded from the same records."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import accounts, dependencies
from hyperion.control import bill_records as b
from hyperion.control import dataset_records as d
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.bills import Bills
from hyperion.control.budgets import Budgets
from hyperion.control.datasets import Datasets
from hyperion.control.machine import key, split
from hyperion.control.queue import WaitingQueue
from hyperion.model.cluster import ClusterLoad
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Job, JobPhase, Secret
from hyperion.placement.choice import FleetCluster, asked_in_all, shape_key
from hyperion.placement.migration import MOST_MOVES


class Committed(Struct):
    """What the jobs placed in a cluster ask for together."""

    cpus_milli: int = 0
    gpus_milli: int = 0
    memory_mib: int = 0
    jobs: int = 0


class FederationState:
    """Plain dicts: the machine alone writes them, and only through ``apply``."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, r.FederatedJob] = {}
        self.clusters: dict[ClusterId, r.ClusterEntry] = {}
        self.decisions: dict[JobId, r.Decided] = {}
        self.secrets: dict[JobId, dict[str, Secret]] = {}
        self.bills = Bills()
        self.budgets = Budgets(self.bills)
        self.datasets = Datasets()
        self.queue = WaitingQueue()
        self.next_order = 1
        self.committed: dict[ClusterId, Committed] = {}
        self.placed_in: dict[ClusterId, dict[JobId, None]] = {}
        """Jobs placed in each cluster and not ended."""
        self.dues: list[tuple[int, JobId]] = []
        """A heap of times at which a deadline or a budget may run out."""
        self.ended: dict[JobId, int] = {}
        """When each ended job ended, oldest first."""
        self._awaited: dict[JobId, set[JobId]] = {}
        """By the job awaited: those that depend on its end."""
        self._begins: list[tuple[int, JobId]] = []
        """A heap of times at which jobs may begin."""
        self._dirty: set[str] = set()

    # -- the fold -------------------------------------------------------------------------------

    def apply(self, record: Struct) -> None:
        match record:
            case r.FederatedJobMoved(job_id, status):
                self._put_job(replace(self.jobs[job_id], status=status))
                self._dirty.add(key("job", job_id))
            case r.FederatedJobAccepted(job, order, at_ms):
                self._put_job(r.FederatedJob(job=job, submitted_at_ms=at_ms, order=order))
                self._dirty.add(key("job", job.id))
            case b.BillKept(line):
                before = self.bills.lines.get((line.job, line.placed))
                self.bills.keep(line)
                self.budgets.note_line(before, line)
            case b.BudgetKept() | b.BudgetDropped() | b.BudgetReached():
                self.budgets.apply(record)
            case b.BillsRolled():
                self.bills.roll(record)
            case _ if type(record) in d.RECORDS:
                self.datasets.apply(record)
            case r.Decided(job_id):
                self.decisions[job_id] = record
                self._dirty.add(key("decision", job_id))
            case r.SecretsKept(job_id, secrets):
                self.secrets[job_id] = secrets
                self._dirty.add(key("secret", job_id))
            case r.FederatedJobPruned(job_id):
                self.jobs.pop(job_id)
                self.ended.pop(job_id, None)
                self.decisions.pop(job_id, None)
                self.secrets.pop(job_id, None)
                self._dirty |= {key(kind, job_id) for kind in ("job", "decision", "secret")}
            case r.ClusterAdmitted(cluster):
                self.clusters[cluster.id] = r.ClusterEntry(cluster=cluster)
                self._dirty.add(key("cluster", cluster.id))
            case r.ClusterLost(cluster_id):
                self.clusters[cluster_id] = replace(self.clusters[cluster_id], lost=True)
                self._dirty.add(key("cluster", cluster_id))
            case _:
                raise TypeError(record)

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        ended: list[r.FederatedJob] = []
        for path, value in items:
            kind, name = split(path)
            match kind:
                case "job":
                    known = _JOB.decode(value)
                    if known.status.phase.is_terminal:
                        ended.append(known)
                    else:
                        self._put_job(known)
                case "cluster":
                    entry = _CLUSTER.decode(value)
                    self.clusters[entry.cluster.id] = entry
                case "decision":
                    self.decisions[JobId(name)] = _DECIDED.decode(value)
                case "secret":
                    self.secrets[JobId(name)] = _SECRETS.decode(value)
                case "bill" | "month":
                    self.bills.restore(kind, value)
                case "budget":
                    self.budgets.restore(value)
                case "dataset":
                    self.datasets.restore(value)
        self.bills.settle()
        for known in sorted(ended, key=lambda k: k.status.ended_at_ms):
            self._put_job(known)
        # As they came, which lists of jobs rely on: the newest stand last.
        self.jobs = dict(sorted(self.jobs.items(), key=lambda item: item[1].order))

    def writes(self) -> dict[str, bytes | None]:
        out: dict[str, bytes | None] = {}
        self._dirty |= self.bills.take_dirty() | self.budgets.take_dirty()
        self._dirty |= self.datasets.take_dirty()
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
            case "cluster":
                return self.clusters.get(ClusterId(name))
            case "decision":
                return self.decisions.get(JobId(name))
            case "secret":
                return self.secrets.get(JobId(name))
            case "bill" | "month":
                return self.bills.entity(kind, name)
            case "budget" | "dataset":
                kept = self.budgets.entries if kind == "budget" else self.datasets.entries
                return kept.get(name)
        raise KeyError(kind)

    # -- questions ------------------------------------------------------------------------------

    def whole(self, job: Job) -> Job:
        secrets = self.secrets.get(job.id)
        return replace(job, secrets=secrets) if secrets else job

    def fleet(
        self, loads: dict[ClusterId, ClusterLoad], reachable: Iterable[ClusterId]
    ) -> tuple[FleetCluster, ...]:
        """The clusters as the planner sees them."""
        can_reach = set(reachable)
        out = []
        for id, entry in self.clusters.items():
            if not entry.lost:
                c = self.committed.get(id, _NOTHING)
                out.append(
                    FleetCluster(
                        cluster=entry.cluster,
                        load=loads.get(id, _UNKNOWN_LOAD),
                        reachable=id in can_reach and id in loads,
                        committed_cpus_milli=c.cpus_milli,
                        committed_gpus_milli=c.gpus_milli,
                        committed_memory_mib=c.memory_mib,
                        backlog_jobs=c.jobs,
                    )
                )
        return tuple(out)

    def placed(self) -> Iterator[r.FederatedJob]:
        """Every job that is in a cluster."""
        return (self.jobs[id] for jobs in list(self.placed_in.values()) for id in list(jobs))

    def phase_of(self, job: JobId) -> JobPhase | None:
        known = self.jobs.get(job)
        return None if known is None else known.status.phase

    def dependents(self, job: JobId) -> list[JobId]:
        """Those that await its end."""
        return sorted(self._awaited.get(job, ()))

    def begins_before(self, now_ms: int) -> bool:
        """Whether the time of a job that was not to begin yet has come. Asking uses it up."""
        found = False
        while self._begins and self._begins[0][0] <= now_ms:
            heapq.heappop(self._begins)
            found = True
        return found

    # -- indexes --------------------------------------------------------------------------------

    def _put_job(self, known: r.FederatedJob) -> None:
        id, status = known.job.id, known.status
        old = self.jobs.get(id)
        was = self._placement(old)
        now = self._placement(known)
        if was != now:
            if was is not None and old is not None:
                self._commit(was, old.job, -1)
                del self.placed_in[was][id]
            if now is not None:
                self._commit(now, known.job, 1)
                self.placed_in.setdefault(now, {})[id] = None
        self.jobs[id] = known
        self.next_order = max(self.next_order, known.order + 1)
        later = old is not None and old.status.not_before_ms != status.not_before_ms
        if later or not _waits(known):
            self.queue.remove(id)
        if _waits(known) and id not in self.queue:
            self._enqueue(known)
        if old is None or old.status.awaits != status.awaits:
            self._note_awaited(id, old.status.awaits if old else (), status.awaits)
        self.budgets.note_held(id, _held(old), _held(known))
        if known.job.reads or known.job.writes:
            self.datasets.note_job(known.job, _ends(old), _ends(known))
        if status.phase.is_terminal:
            self.ended.setdefault(id, status.ended_at_ms)
        else:
            self._note_due(known, old)

    def _enqueue(self, known: r.FederatedJob) -> None:
        job, begin_ms = known.job, known.status.not_before_ms
        if job.begin_s:
            begin_ms = max(begin_ms, known.submitted_at_ms + int(1000 * job.begin_s))
        if begin_ms:
            heapq.heappush(self._begins, (begin_ms, job.id))
        self.queue.add(
            job.id,
            priority=job.priority,
            nice=job.nice,
            order=known.order,
            shape=shape_key(job),
            not_before_ms=begin_ms,
        )

    def _note_awaited(self, job: JobId, before: tuple[JobId, ...], now: tuple[JobId, ...]) -> None:
        for other in before:
            waiting = self._awaited.get(other, set())
            waiting.discard(job)
            if not waiting:
                self._awaited.pop(other, None)
        for other in now:
            self._awaited.setdefault(other, set()).add(job)

    @staticmethod
    def _placement(known: r.FederatedJob | None) -> ClusterId | None:
        if known is None or known.status.phase.is_terminal or not known.status.cluster:
            return None
        return known.status.cluster

    def _commit(self, cluster: ClusterId, job: Job, sign: int) -> None:
        c = self.committed.setdefault(cluster, Committed())
        asked = asked_in_all(job)
        c.cpus_milli += sign * asked.cpus_milli
        c.gpus_milli += sign * asked.gpus
        c.memory_mib += sign * asked.memory_mib
        c.jobs += sign

    def _note_due(self, known: r.FederatedJob, old: r.FederatedJob | None) -> None:
        job, status = known.job, known.status
        if old is None and job.deadline_s:
            due_ms = known.submitted_at_ms + int(1000 * job.deadline_s)
            heapq.heappush(self.dues, (due_ms, job.id))
        new_start = old is None or old.status.started_at_ms != status.started_at_ms
        for due_ms in accounts.dues(job, status) if new_start else ():
            heapq.heappush(self.dues, (due_ms, job.id))

    def unexplained(self) -> list[tuple[r.FederatedJob, str]]:
        """Jobs that rounds pass over since one like them did not fit, and why; the first 64 of
        each kind that have no reason yet, or had one until their time came."""
        return [
            (known, self.queue.blocked[shape])
            for shape, jobs in self.queue.shapes_blocked()
            for known in map(self.jobs.__getitem__, jobs)
            if known.status.reason in ("", dependencies.begins_later(known.job))
        ]

    def prunable(self, old_ms: int, keep: int, limit: int) -> list[JobId]:
        """Ended jobs too old to keep, or beyond the number kept; oldest first."""
        excess = len(self.ended) - keep
        return [
            j
            for n, (j, at_ms) in enumerate(islice(self.ended.items(), limit))
            if at_ms <= old_ms or n < excess
        ]

    def check(self) -> None:
        """Every law that must hold after every step; raises AssertionError."""
        for id, known in self.jobs.items():
            status = known.status
            waits = _waits(known)
            assert (id in self.queue) == waits, f"{id} is {status.phase} but the queue disagrees"
            placed = self._placement(known)
            if placed is not None:
                assert id in self.placed_in[placed], f"{id} is not counted in {placed}"
            if waits:
                assert not status.cluster, f"{id} waits and has the cluster {status.cluster}"
            assert status.answered <= status.generation, f"{id}: answered before asked"
            assert status.moves <= MOST_MOVES, f"{id} has been moved {status.moves} times"
        self.bills.check(self.jobs)
        self.datasets.check()
        for cluster, jobs in self.placed_in.items():
            assert self.committed[cluster].jobs == len(jobs), f"{cluster}: miscounted"


def _waits(known: r.FederatedJob) -> bool:
    """For a cluster; and nothing else has to happen first."""
    status = known.status
    return status.phase is JobPhase.QUEUED and not status.awaits and not status.held


def _ends(known: r.FederatedJob | None) -> tuple[bool, bool]:
    """(it is there and has not ended, it waits for a cluster)."""
    if known is None or known.status.phase.is_terminal:
        return False, False
    return True, known.status.phase is JobPhase.QUEUED


def _held(known: r.FederatedJob | None) -> str:
    """The tenant whose budget keeps it from running."""
    return "" if known is None or known.status.phase.is_terminal else known.status.held


_NOTHING = Committed()
_UNKNOWN_LOAD = ClusterLoad()
_JOB = msgspec.json.Decoder(r.FederatedJob)
_CLUSTER = msgspec.json.Decoder(r.ClusterEntry)
_DECIDED = msgspec.json.Decoder(r.Decided)
_SECRETS = msgspec.json.Decoder(dict[str, Secret])


def facts_of(report: m.JobReport, status: r.FederatedStatus) -> dict[str, Any]:
    """What a cluster says of its job, as changes of the status."""
    return {
        "answered": report.generation,
        "version": max(report.version, status.version),
        "restarts": report.restarts,
        "replicas": report.replicas,
        "exit_code": report.exit_code,
        "width": report.width,
        "preemptions": report.preemptions,
        "tasks": report.tasks,
        "tasks_running": report.tasks_running,
        "checkpoints": report.checkpoints or status.checkpoints,
    }
