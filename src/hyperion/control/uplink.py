"""A cluster's side of its tie to the federation: its lease, and what it has told of which job."""

from collections.abc import Iterator
from itertools import islice, takewhile

from msgspec import Struct

from hyperion.control import gang
from hyperion.control import messages as m
from hyperion.control.cluster_state import ClusterState
from hyperion.control.liveness import Holder
from hyperion.model.cluster import Cluster, ClusterLoad
from hyperion.model.ids import JobId

HELLO_PLACES = 20_000
"""Jobs and replicas in one Hello, which must fit into one message (8 MiB). The federation asks
about those that it does not find there."""
PROGRESS_MS = 1000
REPORTS_PER_TICK = 2000
"""Reports repeated by one tick: more at once would overrun the link's queue and end the session."""


class ClusterTimes(Struct, frozen=True, kw_only=True):
    """The machine's own bounds; see the settings of the same names."""

    node_lease_ms: int = 30_000
    heartbeat_ms: int = 1000
    load_ms: int = 200
    """A changed load is told to the federation at most this often."""
    resend_ms: int = 2000
    refresh_ms: int = 30_000
    silent_ms: int = 100_000
    """A living replica not reported for this long (agents do so every 30 s) is asked about."""
    report_ms: int = 100
    """States that pass quickly (queued, starting) are reported only once they have lasted."""
    mark_ms: int = 600_000
    retention_ms: int = 3_600_000
    """How long ended jobs of this cluster's own API, and lost nodes, are kept."""
    fence_before_ms: int = 5000
    placements_per_round: int = 1000
    grow_after_ms: int = 60_000
    """How long an elastic job runs before it is given more replicas."""
    consolidate_after_ms: int = 30_000
    """How long a job waits before others are moved together for it."""
    quantum_ms: int = 10_000
    """A job that was preempted before is safe for so long after each start, times how often."""


class Uplink:
    """Soft state: after a restart everything is told again."""

    def __init__(self, cluster: Cluster, times: ClusterTimes, state: ClusterState) -> None:
        self.lease = Holder()
        self.attached = False
        self._cluster = cluster
        self._times = times
        self._state = state
        self._unreported: dict[JobId, int] = {}
        """Changed but not told yet, and since when."""
        self._progressed: dict[JobId, int] = {}
        """Likewise arrays, whose tasks come and go all the time."""
        self._living: dict[JobId, int] = {}
        """The federation's jobs, and when each was last reported, longest ago first."""
        self._ended: dict[JobId, int] = {}
        """Likewise those that have ended, until the federation forgets them."""
        self._load_told_ms = 0

    def may_run(self, now_ms: int) -> bool:
        """Whether the federation's jobs may start or go on here."""
        margin_ms = self.lease.margin_ms(self._times.fence_before_ms)
        return self.lease.is_valid(now_ms + margin_ms)

    def restored(self) -> None:
        for job, known in self._state.jobs.items():
            if known.federated:
                self._note_told(job, known.status.phase.is_terminal, 0)

    def forget(self, job: JobId) -> None:
        self._unreported.pop(job, None)
        self._progressed.pop(job, None)
        self._living.pop(job, None)
        self._ended.pop(job, None)

    def greet(self, now_ms: int) -> Iterator[m.SendToFederation]:
        """The first message of a session: who we are, and every job we hold of the federation."""
        self.attached = True
        self.lease.attached(now_ms)
        self._load_told_ms = now_ms
        reports = []
        room = HELLO_PLACES
        for known in self._state.jobs.values():
            if known.federated and room > 0:
                self._note_told(known.job.id, known.status.phase.is_terminal, now_ms)
                report = gang.job_report(known, self._state.attempt_of(known.job.id))
                reports.append(report)
                room -= 1 + len(report.replicas)
        self._unreported.clear()
        self._progressed.clear()
        yield m.SendToFederation(
            m.ClusterHello(cluster=self._cluster, load=self.load(), jobs=tuple(reports))
        )

    def tell(self, job: JobId, now_ms: int) -> Iterator[m.SendToFederation]:
        """Report where the job stands, now and until the federation has acknowledged its end."""
        known = self._state.jobs[job]
        self._unreported.pop(job, None)
        self._progressed.pop(job, None)
        if not known.federated:
            return
        self._note_told(job, known.status.phase.is_terminal, now_ms)
        if self.attached:
            yield m.SendToFederation(gang.job_report(known, self._state.attempt_of(job)))

    def tell_later(self, job: JobId, now_ms: int) -> None:
        """Report it once the state has lasted: most states before running are over at once."""
        self._unreported.setdefault(job, now_ms)

    def tell_progress(self, job: JobId, now_ms: int) -> None:
        """Report how far an array has come, together with what else happens in this second."""
        self._progressed.setdefault(job, now_ms)

    def tick(self, now_ms: int) -> Iterator[m.SendToFederation]:
        if not self.attached:
            return
        yield from self.beat(now_ms)
        waits = (
            (self._unreported, self._times.report_ms),
            (self._progressed, PROGRESS_MS),
            (self._ended, self._times.resend_ms),
            (self._living, self._times.refresh_ms),
        )
        for told, wait_ms in waits:
            due = takewhile(lambda entry: now_ms - entry[1] >= wait_ms, told.items())  # noqa: B023
            for job in [job for job, _ in islice(due, REPORTS_PER_TICK)]:
                yield from self.tell(job, now_ms)

    def load(self) -> ClusterLoad:
        waiting = len(self._state.queue) + len(self._state.noted.awaiting)
        return ClusterLoad(
            shapes=self._state.snapshot.shapes(),
            waiting_jobs=waiting,
            running_jobs=self._state.active_jobs - waiting,
        )

    def beat(self, now_ms: int, news_ms: int | None = None) -> Iterator[m.SendToFederation]:
        """A heartbeat, if one is due or the load has changed and was not told just now: within
        ``news_ms``, or the setting ``load_ms``."""
        if not self.attached:
            return
        due = now_ms - self.lease.heartbeat_at_ms >= self._times.heartbeat_ms
        news_ms = self._times.load_ms if news_ms is None else news_ms
        lately = now_ms - self._load_told_ms < news_ms
        if due or (self._state.load_changed and not lately):
            load = self.load() if self._state.load_changed else None
            self._state.load_changed = False
            self._load_told_ms = now_ms
            sequence = self.lease.beat(now_ms)
            yield m.SendToFederation(m.ClusterHeartbeat(sequence=sequence, load=load))

    def _note_told(self, job: JobId, ended: bool, now_ms: int) -> None:
        """Put it last, so that the others are in the order in which their turn comes."""
        self._living.pop(job, None)
        self._ended.pop(job, None)
        (self._ended if ended else self._living)[job] = now_ms
