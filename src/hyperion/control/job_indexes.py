"""Jobs of a cluster by what has to be remembered about them: one more fold of their records."""

import heapq
from collections.abc import Mapping
from itertools import islice
from typing import TypeVar

from hyperion.control import records as r
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase

K = TypeVar("K")
V = TypeVar("V")
Jobs = Mapping[JobId, r.ClusterJob]


class JobIndexes:
    def __init__(self) -> None:
        self._awaited: dict[JobId, set[JobId]] = {}
        """By the job awaited: those that depend on its end."""
        self.awaiting: set[JobId] = set()
        """Those that wait for the end of others."""
        self._paused: dict[JobId, dict[JobId, None]] = {}
        """By the urgent job: those that stand still for it, as they came."""
        self._elastic: set[JobId] = set()
        self._reserved: set[JobId] = set()
        self._deadlines: list[tuple[int, JobId]] = []
        self._federated: dict[JobId, None] = {}
        """The federation's jobs that have not ended, as they came."""
        self._ended: dict[JobId, int] = {}
        """Ended jobs of the cluster's own API, the first one first."""

    def note(self, old: r.ClusterJob | None, known: r.ClusterJob) -> None:
        """A job is new, or its status has changed."""
        job, status = known.job, known.status
        if old is None or old.status.awaits != status.awaits:
            (self.awaiting.add if status.awaits else self.awaiting.discard)(job.id)
            self._note_awaited(job.id, old.status.awaits if old else (), status.awaits)
        before = old.status.paused_for if old else ""
        if before != status.paused_for:
            self._note_paused(job.id, JobId(before), status.paused_for)
        over = status.phase.is_terminal
        if job.elastic is not None:
            (self._elastic.discard if over else self._elastic.add)(job.id)
        if job.reservation:
            (self._reserved.discard if over else self._reserved.add)(job.id)
        if known.federated:
            if over:
                self._federated.pop(job.id, None)
            else:
                self._federated.setdefault(job.id)
            return
        if over:
            self._ended[job.id] = status.ended_at_ms
        elif old is None and job.deadline_s:
            deadline_ms = known.submitted_at_ms + int(1000 * job.deadline_s)
            heapq.heappush(self._deadlines, (deadline_ms, job.id))

    def forget(self, known: r.ClusterJob) -> None:
        id = known.job.id
        self._note_awaited(id, known.status.awaits, ())
        self._note_paused(id, known.status.paused_for, JobId(""))
        self.awaiting.discard(id)
        self._elastic.discard(id)
        self._reserved.discard(id)
        self._ended.pop(id, None)
        self._federated.pop(id, None)

    def dependents(self, job: JobId) -> list[JobId]:
        """Those that await its end."""
        return sorted(self._awaited.get(job, ()))

    def federated(self) -> list[JobId]:
        return list(self._federated)

    def reserved(self) -> list[JobId]:
        """Jobs that run only inside a window."""
        return sorted(self._reserved)

    def winners(self) -> list[JobId]:
        """Jobs for which others stand still."""
        return list(self._paused)

    def paused_for(self, job: JobId) -> list[JobId]:
        """Those that stand still for it."""
        return list(self._paused.get(job, ()))

    def growable(self, jobs: Jobs, before_ms: int, limit: int) -> list[JobId]:
        """Elastic jobs that have run since then with fewer replicas than they could have."""
        found = (j for j in sorted(self._elastic) if _may_grow(jobs[j], before_ms))
        return list(islice(found, limit))

    def past_deadline(self, jobs: Jobs, now_ms: int, limit: int) -> list[JobId]:
        """Jobs of the cluster's own whose deadline has passed. Asking uses it up."""
        found: list[JobId] = []
        while self._deadlines and self._deadlines[0][0] <= now_ms and len(found) < limit:
            due_ms, id = heapq.heappop(self._deadlines)
            known = jobs.get(id)
            if known is None or known.status.phase.is_terminal:
                continue
            if due_ms == known.submitted_at_ms + int(1000 * known.job.deadline_s):
                found.append(id)  # else it was that of a forgotten job of the same id
        return found

    def ended_before(self, old_ms: int, limit: int) -> list[JobId]:
        """Ended jobs of the cluster's own API; the federation's are forgotten on its word."""
        return [j for j, at in islice(self._ended.items(), limit) if at <= old_ms]

    def _note_awaited(self, job: JobId, before: tuple[JobId, ...], now: tuple[JobId, ...]) -> None:
        for other in before:
            waiting = self._awaited.get(other, set())
            waiting.discard(job)
            if not waiting:
                self._awaited.pop(other, None)
        for other in now:
            self._awaited.setdefault(other, set()).add(job)

    def _note_paused(self, job: JobId, before: JobId, now: JobId) -> None:
        if before:
            among = self._paused[before]
            del among[job]
            if not among:
                del self._paused[before]
        if now:
            self._paused.setdefault(now, {})[job] = None


def include(index: dict[K, set[V]], key: K, value: V) -> None:
    found = index.get(key)
    if found is None:
        index[key] = {value}
    else:
        found.add(value)


def _may_grow(known: r.ClusterJob, before_ms: int) -> bool:
    status = known.status
    runs = status.phase is JobPhase.RUNNING and status.started_at_ms <= before_ms
    runs = runs and not status.paused_for
    return runs and 0 < status.width < known.job.replicas
