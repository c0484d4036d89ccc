"""Why a job waits in this cluster, when it would start, and what would become of one not submitted.

The same planner, calendar and quotas answer as in a round; nothing is changed by asking.
"""

from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import gang, turns
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
    remark: str = ""
    """What no other field tells: what it does, or why nothing of it is wanted here."""
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
    not_before_ms: int = 0
    """Its own begin, or the end of the wait before a retry; 0: now."""
    pauses: tuple[JobId, ...] = ()
    """Jobs that would stand still for it."""
    preempts: tuple[JobId, ...] = ()
    """Whom it would take places from, were it submitted."""


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
            return Prospect(job=job_id, queue=queue, waits=False, remark=self._runs(known))
        position = self._state.queue.position(job_id)
        base = Prospect(
            job=job_id,
            queue=queue,
            position=position,
            position_in_queue=self._state.queue.position_in_queue(job_id),
        )
        if known.status.awaits:
            return replace(base, awaits=known.status.awaits)
        if known.status.claim:
            return replace(base, remark=f"It {known.status.reason}; its places are kept for it.")
        refusal = self._rounds.refusals.get(self._state.queue.shape_of(job_id))
        return self._waiting(base, known, refusal, now_ms)

    def trial(self, job: Job, now_ms: int) -> Prospect:
        """What would become of the job if it were submitted now."""
        queue = queue_of(job)
        base = Prospect(job=job.id, queue=queue)
        objection = self._intake.closed_to(job)
        if objection:
            return replace(base, remark=objection)
        known = r.ClusterJob(
            job=job, federated=False, submitted_at_ms=now_ms, order=0, status=r.JobStatus()
        )
        wish = self._seating.wish(known, ROOM, now_ms)
        found = planner.plan(self._state.snapshot, wish, self._policy, self._state.calendar, now_ms)
        refusal = self._state.occupancy.tree.refusal(queue, need_of_job(job))
        if isinstance(found, Plan) and refusal is None and not job.begin_s:
            starts = len(found.seats)
            return replace(
                base, waits=False, starts_at_ms=now_ms, confidence=1.0, replicas_now=starts
            )
        blocked = found if isinstance(found, Unplaceable) else None
        return self._by_force(self._waiting(base, known, blocked, now_ms), known, now_ms)

    def _by_force(self, prospect: Prospect, known: r.ClusterJob, now_ms: int) -> Prospect:
        """The same, if it would rather have others stopped than wait."""
        found = self._rounds.victims(known, now_ms) if not prospect.not_before_ms else None
        if found is None:
            return prospect
        losers = (*found.victims, *(job for job, _ in (*found.shrink, *found.tasks)))
        preempts = tuple(dict.fromkeys(losers))
        prospect = replace(prospect, confidence=1.0, because=(), quota=None, replicas_now=0)
        if self._rounds.lets_stand_still(known, found, now_ms):
            return replace(prospect, pauses=preempts, starts_at_ms=now_ms)
        grace_s = max(self._state.jobs[job].job.checkpoint.grace_s for job in preempts)
        return replace(prospect, preempts=preempts, starts_at_ms=now_ms + int(1000 * grace_s))

    def _waiting(
        self, base: Prospect, known: r.ClusterJob, refusal: Unplaceable | None, now_ms: int
    ) -> Prospect:
        quota = self._state.occupancy.tree.refusal(base.queue, need_of_job(known.job))
        base = replace(base, quota=quota)
        if refusal is not None:
            base = replace(
                base,
                reasons={reason.value: n for reason, n in refusal.rejected.items()},
                details={reason.value: text for reason, text in refusal.details.items()},
                nodes=refusal.nodes,
                never=not refusal.ever,
            )
        due_ms = _due_ms(known)
        base = replace(base, not_before_ms=due_ms if due_ms > now_ms else 0)
        if base.never:
            return base
        told = self._outlook(known, now_ms)
        base = replace(base, because=told.because)
        if not base.not_before_ms:
            base = replace(base, replicas_now=told.replicas_now)
        if quota is not None or told.starts_at_ms is None:
            return base
        starts_at_ms = max(base.not_before_ms, told.starts_at_ms)
        return replace(base, starts_at_ms=starts_at_ms, confidence=told.confidence)

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
