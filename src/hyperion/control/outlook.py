"""Why a job waits in this cluster, when it would start, and what would become of one not submitted.

The same planner, calendar and quotas answer as in a round; nothing is changed by asking.
"""

from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import dependencies, gang, turns
from hyperion.control import records as r
from hyperion.control.cluster_state import ClusterState
from hyperion.control.intake import Intake
from hyperion.control.occupancy import need_of_job, queue_of
from hyperion.control.rounds import Rounds
from hyperion.control.seating import Seating
from hyperion.model.ids import JobId
from hyperion.model.job import Job, JobPhase
from hyperion.placement import planner
from hyperion.placement.fairness import QuotaRefusal
from hyperion.placement.outlook import Outlook, outlook
from hyperion.placement.planner import Plan, Unplaceable
from hyperion.placement.ranking import Policy

AHEAD_MAX = 8
"""Jobs before it that are given places first, where they have no promise yet."""
ROOM = 1000
"""Tasks of an array that are looked for at once."""


class Prospect(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a cluster can tell about a job that waits in it, or would."""

    job: JobId
    queue: str = ""
    waits: bool = True
    """False: it runs, has ended, or would start at once."""
    position: int | None = None
    """How many are before it in all."""
    position_in_queue: int | None = None
    sentences: tuple[str, ...] = ()
    reasons: dict[str, int] = {}
    """Nodes by the reason for which they do not take it."""
    details: dict[str, str] = {}
    """The same in numbers, where there are some."""
    nodes: int = 0
    never: bool = False
    """It would not fit even if all nodes were empty."""
    quota: QuotaRefusal | None = None
    awaits: tuple[JobId, ...] = ()
    starts_at_ms: int | None = None
    """As things are now; None: nothing tells."""
    confidence: float = 0.0
    """How likely it is to start by then, 0 to 1."""
    because: tuple[JobId, ...] = ()
    """Whose ends it waits for last."""
    replicas_now: int = 0
    """With how many replicas it would start at once."""
    seats: tuple[tuple[str, int], ...] = ()
    """(node, replicas) where it would start at once."""


class Prospects:
    def __init__(
        self,
        policy: Policy,
        state: ClusterState,
        rounds: Rounds,
        seating: Seating,
        intake: Intake,
    ) -> None:
        self._policy = policy
        self._state = state
        self._rounds = rounds
        self._seating = seating
        self._intake = intake

    def of(self, job_id: JobId, now_ms: int) -> Prospect | None:
        """None: this cluster does not know the job."""
        known = self._state.jobs.get(job_id)
        if known is None:
            return None
        queue = queue_of(known.job)
        if known.status.phase is not JobPhase.QUEUED:
            return Prospect(job=job_id, queue=queue, waits=False, sentences=(self._runs(known),))
        position = self._state.queue.position(job_id)
        base = Prospect(
            job=job_id,
            queue=queue,
            position=position,
            position_in_queue=self._state.queue.position_in_queue(job_id),
        )
        if known.status.awaits:
            sentence = f"It {dependencies.waits_for(known.status.awaits)}."
            return replace(base, sentences=(sentence,), awaits=known.status.awaits)
        if known.status.claim:
            sentence = f"It {known.status.reason}; its places are kept for it."
            return replace(base, sentences=(sentence,))
        refusal = self._rounds.refusals.get(self._state.shape(known.job))
        return self._waiting(base, known, refusal, now_ms)

    def trial(self, job: Job, now_ms: int) -> Prospect:
        """What would become of the job if it were submitted now."""
        queue = queue_of(job)
        base = Prospect(job=job.id, queue=queue)
        objection = self._intake.closed_to(job)
        if objection:
            return replace(base, sentences=(objection,))
        known = r.ClusterJob(
            job=job, federated=False, submitted_at_ms=now_ms, order=0, status=r.JobStatus()
        )
        wish = self._seating.wish(known, ROOM, now_ms)
        found = planner.plan(self._state.snapshot, wish, self._policy, self._state.calendar, now_ms)
        refusal = self._state.occupancy.tree.refusal(queue, need_of_job(job))
        if isinstance(found, Plan) and refusal is None and not job.begin_s:
            return self._starts_now(base, found, now_ms)
        blocked = found if isinstance(found, Unplaceable) else None
        return self._waiting(base, known, blocked, now_ms)

    def _starts_now(self, base: Prospect, plan: Plan, now_ms: int) -> Prospect:
        seats: dict[str, int] = {}
        for seat in plan.seats:
            seats[seat.node] = seats.get(seat.node, 0) + 1
        where = ", ".join(f"{node} ({n})" if n > 1 else node for node, n in seats.items())
        return replace(
            base,
            waits=False,
            sentences=(f"It would start now, on {where}.",),
            starts_at_ms=now_ms,
            confidence=1.0,
            replicas_now=len(plan.seats),
            seats=tuple(seats.items()),
        )

    def _waiting(
        self, base: Prospect, known: r.ClusterJob, refusal: Unplaceable | None, now_ms: int
    ) -> Prospect:
        sentences = []
        if base.position is not None:
            sentences.append(_before(base.position, base.queue))
        quota = self._state.occupancy.tree.refusal(base.queue, need_of_job(known.job))
        if quota is not None:
            sentences.append(_quota_sentence(quota))
        if refusal is not None:
            sentences.append(f"There, now: {gang.refusal_text(refusal)}.")
        told = self._outlook(known, now_ms) if refusal is None or refusal.ever else None
        due_ms = _due_ms(known)
        if told is not None and due_ms > now_ms:
            sentences.append(f"Its own time begins in {_duration((due_ms - now_ms) / 1000)}.")
            starts_at_ms = max(due_ms, told.starts_at_ms or 0) if told.starts_at_ms else None
            told = replace(told, starts_at_ms=starts_at_ms, replicas_now=0)
        if told is not None and quota is None:
            sentences += _start_sentences(known.job, told, now_ms)
        return replace(
            base,
            sentences=tuple(sentences),
            quota=quota,
            reasons={} if refusal is None else _counts(refusal),
            details={} if refusal is None else {k.value: v for k, v in refusal.details.items()},
            nodes=refusal.nodes if refusal is not None else 0,
            never=refusal is not None and not refusal.ever,
            starts_at_ms=told.starts_at_ms if told is not None and quota is None else None,
            confidence=told.confidence if told is not None and quota is None else 0.0,
            because=told.because if told is not None else (),
            replicas_now=told.replicas_now if told is not None else 0,
        )

    def _outlook(self, known: r.ClusterJob, now_ms: int) -> Outlook:
        state = self._state
        ahead = [
            self._seating.wish(state.jobs[job], 1, now_ms)
            for job in turns.first_blocked(state, AHEAD_MAX)
            if turns.goes_before(state, job, known)
        ]
        running = {job: state.jobs[job].job for job in state.running.occupants}
        return outlook(
            state.snapshot,
            state.running,
            state.calendar,
            state.forecast,
            self._seating.wish(known, 1, now_ms),
            self._policy,
            now_ms,
            ahead=ahead,
            jobs=running,
        )

    def _runs(self, known: r.ClusterJob) -> str:
        live = self._state.live_of(known.job.id)
        where = ", ".join(dict.fromkeys(str(a.node) for a in live)) or "no node"
        if known.status.phase.is_terminal:
            return f"It has {known.status.phase.value}."
        of = gang.width(known) if known.job.array is None else known.job.array.size
        what = "tasks run" if known.job.array is not None else "replicas are"
        return f"{len(live)} of {of} {what} on {where}."


def _due_ms(known: r.ClusterJob) -> int:
    """Before which it is not started: its own begin, or the wait before a retry."""
    begins_ms = known.submitted_at_ms + int(1000 * known.job.begin_s) if known.job.begin_s else 0
    return max(begins_ms, known.status.not_before_ms)


def _before(position: int, queue: str) -> str:
    jobs = {0: "No job is", 1: "1 job is"}.get(position, f"{position} jobs are")
    return f"{jobs} before it (queue {queue})."


def _counts(refusal: Unplaceable) -> dict[str, int]:
    return {reason.value: n for reason, n in refusal.rejected.items()}


def _quota_sentence(quota: QuotaRefusal) -> str:
    if not quota.resource:
        return f"Queue {quota.queue} is stopped: nothing new starts from it."
    return (
        f"Queue {quota.queue} holds {_amount(quota.resource, quota.used)} of"
        f" {_amount(quota.resource, quota.quota)} {_noun(quota.resource)};"
        f" {_amount(quota.resource, quota.asked)} more would be over its quota."
    )


def _amount(resource: str, amount: int) -> str:
    if resource.partition("/")[0].endswith("_milli"):
        return f"{amount / 1000:g}"
    if resource.endswith("_mib"):
        return f"{amount / 1024:.4g}"
    return f"{amount}"


def _noun(resource: str) -> str:
    name, _, kind = resource.partition("/")
    nouns = {
        "cpus_milli": "CPUs",
        "gpus_milli": f"{kind} GPUs" if kind else "GPUs",
        "memory_mib": "GiB memory",
        "disk_mib": "GiB disk",
    }
    return nouns.get(name, name)


def _start_sentences(job: Job, told: Outlook, now_ms: int) -> list[str]:
    sentences = []
    if told.starts_at_ms is not None:
        wait = _duration((told.starts_at_ms - now_ms) / 1000)
        awaited = ", ".join(told.because[:3])
        when = f" when job {awaited} ends" if awaited else ""
        sentences.append(f"It would start in about {wait}{when} ({told.confidence:.0%} sure).")
    if 0 < told.replicas_now < job.replicas:
        sentences.append(f"It would start now with {told.replicas_now} replicas.")
    return sentences


def _duration(seconds: float) -> str:
    for limit, unit_s, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds / unit_s):.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
