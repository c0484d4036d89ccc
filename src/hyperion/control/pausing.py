"""Room made for an urgent job by letting others stand still: they keep their memory and no work is
lost.

A paused job stays charged with all that it has, and so does the job it makes way for: what is free
of CPU goes below zero meanwhile, and nobody else gets any of it. It goes on as soon as the urgent
one has gone, and is stopped like any other victim when that takes longer than its hold.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

from msgspec.structs import replace

from hyperion.control import gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.attempts import Attempts
from hyperion.control.cluster_state import ClusterState
from hyperion.control.occupancy import QUANTUM_MS, STAND_WITHIN_MS
from hyperion.control.orders import Orders
from hyperion.control.promise import Promise
from hyperion.control.seating import Seating
from hyperion.model.allocation import Allocation, Freeze
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import JobPhase
from hyperion.model.node import CRIU, PAUSE
from hyperion.model.resources import ResourceRequest
from hyperion.placement.planner import Plan, Seat
from hyperion.placement.preemption import Eviction

_Decisions = Iterator[Any]
_K = TypeVar("_K", bound=str)
_T = TypeVar("_T")
_STOOD = (S.PAUSING, S.PAUSED)
MOST_PAUSED = 0.5
"""Of its time since its start no job stands still for more than this part."""
SPARED_MS = 60_000
"""A job that would not stand still is not asked again for so long."""
STAYS_AWAY_MS = 10_000
"""Twice as long each time: a job that was stopped since a standby wants its GPU for longer than its
hold. The place that it leaves is free, and it would only stand still there again."""
MOST_DOUBLINGS = 2
MOST_REMEMBERED = 4096


class Pausing:
    def __init__(
        self,
        state: ClusterState,
        attempts: Attempts,
        seating: Seating,
        orders: Orders[AllocationId],
    ) -> None:
        self._state = state
        self._attempts = attempts
        self._seating = seating
        self._orders = orders
        self._spared: dict[JobId, int] = {}
        """Jobs that could not be made to stand still, and until when they are not asked again."""
        self._late: dict[JobId, None] = {}
        """Jobs of which nothing was heard in time when they were told to. Soft."""
        self._rests: deque[int] = deque(maxlen=MOST_REMEMBERED)
        """When those that went on lately may be asked again."""
        self._stood: dict[JobId, None] = {}
        """Jobs that have stood still, or would not, lately. Soft."""
        self._settled: dict[AllocationId, tuple[int, Freeze]] = {}
        """By which order replicas stand still, and what they told of that afterwards. Soft."""
        self.promise = Promise()
        self.count = 0
        """Jobs made to stand still since the start of the process."""

    # -- whether --------------------------------------------------------------------------------

    def will_do(self, known: r.ClusterJob, eviction: Eviction, now_ms: int) -> bool:
        """Whether it is enough that the victims stand still: nothing but CPU time is lacking, all
        of them can, and the quotas let the job start beside them."""
        job = known.job
        whole = not (eviction.shrink or eviction.tasks or eviction.moves)
        if not whole or job.array is not None or not self._state.occupancy.admits(job):
            return False
        losers = [self._state.jobs[victim] for victim in eviction.victims]
        if all(loser.status.paused_for for loser in losers) or not all(
            self._may_pause(loser, known, now_ms) for loser in losers
        ):
            return False
        gives: dict[NodeId, int] = {}
        for victim in eviction.victims:
            for a in self._state.live_of(victim):
                gives[a.node] = gives.get(a.node, 0) + a.request.cpus_milli
        return self._lacks_cpus_only(known, eviction.plan, gives)

    def _may_pause(self, loser: r.ClusterJob, winner: r.ClusterJob, now_ms: int) -> bool:
        job, status = loser.job, loser.status
        if not job.can_stand_still or job.priority >= winner.job.priority:
            return False
        if status.phase is not JobPhase.RUNNING:
            return False
        if status.paused_for:  # it stays as it is, and makes room for nobody by that alone
            return all(a.state is S.PAUSED for a in self._state.live_of(job.id))
        if self._is_tired(job.id, now_ms):
            return False
        runs = (S.RUNNING, S.RESUMING)
        return all(a.state in runs and self.can_pause(a) for a in self._state.live_of(job.id))

    def tired(self, now_ms: int) -> frozenset[JobId]:
        """Jobs that would stand still, only not just now: others may do as well. Some may be
        missing after a restart."""
        for job in [job for job in self._stood if not self._is_held(job, now_ms)]:
            del self._stood[job]
        return frozenset(self._stood)

    def _is_held(self, job: JobId, now_ms: int) -> bool:
        """It stands still already, for somebody else, or is tired of it."""
        known = self._state.jobs.get(job)
        stands = known is not None and known.status.paused_for != ""
        return stands or self._is_tired(job, now_ms)

    def _is_tired(self, job: JobId, now_ms: int) -> bool:
        """It has stood still for too much of its time, or would not."""
        known = self._state.jobs.get(job)
        if known is None or known.status.phase is not JobPhase.RUNNING:
            return False
        status = known.status
        if self._spared.get(job, 0) > now_ms:
            return True
        if status.paused_for:
            return False
        return status.paused_ms > MOST_PAUSED * (now_ms - status.started_at_ms)

    def can_pause(self, a: Allocation) -> bool:
        """Whether it could stand still where it is, if it runs. A GPU finishes what has been given
        to it, so it must be little; its memory stays full."""
        node = self._state.nodes[a.node].node
        able = PAUSE in node.abilities and a.node not in self._state.silent
        return able and (not a.request.gpus_milli or self._state.jobs[a.job].job.yields_gpus)

    def _lacks_cpus_only(self, known: r.ClusterJob, plan: Plan, gives: dict[NodeId, int]) -> bool:
        needs: dict[NodeId, list[ResourceRequest]] = {}
        for rank, seat in enumerate(plan.seats):
            needs.setdefault(seat.node, []).append(known.job.request(rank, plan.alternative))
        for node, requests in needs.items():
            if any(request.gpus_milli or request.custom for request in requests):
                return False
            free = self._state.snapshot.free(node)
            fits = (
                sum(x.cpus_milli for x in requests) <= free.cpus_milli + gives.get(node, 0)
                and sum(x.memory_mib for x in requests) <= free.memory_mib
                and sum(x.disk_mib for x in requests) <= free.disk_mib
            )
            if not fits:
                return False
        return True

    # -- pausing --------------------------------------------------------------------------------

    def pause(
        self, known: r.ClusterJob, eviction: Eviction, claim: tuple[r.Claim, ...], now_ms: int
    ) -> _Decisions:
        """Order all victims to stand still, and keep their CPUs for the job."""
        state = self._state
        losers = [state.jobs[victim] for victim in eviction.victims]
        losers = [loser for loser in losers if not loser.status.paused_for]
        for loser in losers:
            yield from self.stand(loser, known.job.id, now_ms)
        ids = tuple(loser.job.id for loser in losers)
        asked_ms = max((loser.job.pausing.asked_ms for loser in losers), default=0)
        self.promise.ordered(known.job.id, ids, known.submitted_at_ms, now_ms, asked_ms)
        yield state.moved(
            state.jobs[known.job.id],
            now_ms,
            alternative=eviction.plan.alternative,
            claim=claim,
            claimed_until_ms=now_ms + asked_ms + STAND_WITHIN_MS,
            claims_over=True,
            reason=f"waits until {len(losers)} of lower rank stand still",
        )

    def stand(self, loser: r.ClusterJob, winner: JobId, now_ms: int) -> _Decisions:
        """It stands still for that job: whatever of it still runs is told to."""
        for a in self._state.live_of(loser.job.id):
            if a.state in (S.RUNNING, S.RESUMING):
                yield from self.order(a, loser, winner, now_ms)
        yield self._state.moved(
            loser,
            now_ms,
            paused_for=winner,
            paused_at_ms=now_ms,
            reason=f"paused for job {winner}",
        )
        self.count += 1
        _remember(self._stood, loser.job.id, None)
        self.tell_later(loser.job.id, now_ms)

    def order(self, a: Allocation, loser: r.ClusterJob, winner: JobId, now_ms: int) -> _Decisions:
        """Tell one replica to stand still. A standby that is wanted waits for nobody's step: it
        has its CPUs already, and does not know that others are on them."""
        at_once = self._state.jobs[winner].job.standby is not None
        pausing = replace(a, state=S.PAUSING, generation=a.generation + 1)
        yield r.AllocationMoved(pausing)
        self._orders.sent(a.id, now_ms)
        yield m.SendToNode(a.node, gang.pause_order(pausing, loser.job, at_once=at_once))

    def tell_later(self, job: JobId, now_ms: int) -> None:
        """The federation is to know of it soon."""
        self._attempts.tell_later(job, now_ms)

    def start(self, known: r.ClusterJob, now_ms: int) -> _Decisions:
        """Start the job that claims its places if all stand still; give up if one will not, or
        nothing can be heard of it."""
        seats = [
            a
            for victim in self._state.noted.paused_for(known.job.id)
            for a in self._state.live_of(victim)
        ]
        states = {a.state for a in seats}
        if states <= {S.PAUSED}:
            for a in seats:
                self._late.pop(a.job, None)
            places = sorted(known.status.claim, key=lambda claim: claim.rank)
            seated = tuple(Seat(claim.node, claim.devices) for claim in places)
            plan = Plan(known.job.id, known.status.alternative, seated)
            self.promise.free(known.job.id, now_ms)
            yield from self._seating.start(known, plan, now_ms)
            return
        if states <= {S.PAUSED, S.STOPPING}:
            return  # somebody ends altogether: its place is free once it has
        late = [a for a in seats if a.state is not S.PAUSED]
        refused = [a for a in late if a.state in (S.RUNNING, S.RESUMING)]
        away = any(a.node in self._state.silent for a in late)
        if refused or away or now_ms >= known.status.claimed_until_ms:
            for a in refused:
                self._spare(a.job, now_ms)
            if not refused and not away:
                self._bear_with(late, now_ms)
            reasons = [a.reason or f"still {a.state.value}" for a in late]
            self.promise.failed(known.job.id, "; ".join(reasons[:4]), now_ms)
            yield self._state.moved(known, now_ms, claim=(), reason="")
            yield from self._let_go(known.job.id, now_ms)

    def _bear_with(self, late: list[Allocation], now_ms: int) -> None:
        """That nothing was heard of them may be the fault of their agents: they are asked again,
        once."""
        for job in dict.fromkeys(a.job for a in late):
            if job in self._late:
                self._spare(job, now_ms)
            _remember(self._late, job, None)

    def hear(self, node: NodeId, report: m.AllocationReport, now_ms: int) -> _Decisions:
        """Note how long it took, before the report is taken in."""
        a = self._state.allocations.get(report.allocation)
        if a is None or a.generation != report.generation:
            return
        if report.freeze is not None and a.state is S.PAUSING:
            if a.on_disk:
                yield from self._hear_settled(a, report.freeze, now_ms)
                return
            winner = self._state.jobs[a.job].status.paused_for
            self.promise.froze(node, winner, report.freeze, now_ms)
        elif report.freeze is not None and a.state is S.PAUSED:
            yield from self._hear_settled(a, report.freeze, now_ms)
        elif report.freeze is not None and a.state is S.WARM:
            self.promise.activated(node, a.job, report.freeze, now_ms)
        elif report.state is S.RUNNING and a.state is not S.RUNNING:
            self.promise.runs(a.job, now_ms)

    def _hear_settled(self, a: Allocation, freeze: Freeze, now_ms: int) -> _Decisions:
        """Compute was free before; now it is known what became of memory and work. It is told
        again with each report: counted once. Of a gang a step is saved where all have saved it."""
        known = self._state.jobs[a.job]
        if not known.status.paused_for or not (a.on_disk or freeze.saved_us or freeze.freed_bytes):
            return
        generation, before = self._settled.get(a.id, (0, freeze))
        is_new = generation != a.generation or not before.saved_us
        if freeze.saved_us and is_new and not a.on_disk:
            self.promise.settled(a.node, freeze)
        _remember(self._settled, a.id, (a.generation, freeze))
        ranks = self._state.live_of(a.job)
        found = [(rank, self._settled[rank.id]) for rank in ranks if rank.id in self._settled]
        told = [said for rank, (by, said) in found if by == rank.generation]
        saved = [said.step for said in told if said.saved_us]
        parts = [f"paused for job {known.status.paused_for}"]
        if a.on_disk:
            parts.append("set aside on disk")
        elif len(saved) == len(ranks) and len(set(saved)) == 1:
            parts.append(f"step {freeze.step} is saved")
        freed_mib = sum(said.freed_bytes for said in told) >> 20
        if freed_mib:
            parts.append(f"{freed_mib} MiB given back")
        reason = "; ".join(parts)
        if len(parts) > 1 and known.status.reason != reason:
            yield self._state.moved(known, now_ms, reason=reason)
            self.tell_later(a.job, now_ms)

    def _spare(self, job: JobId, now_ms: int) -> None:
        _remember(self._spared, job, now_ms + SPARED_MS)
        _remember(self._stood, job, None)

    # -- and going on ---------------------------------------------------------------------------

    def settle(self, now_ms: int) -> _Decisions:
        """Let those go on whose urgent job has gone."""
        state = self._state
        for winner in state.noted.winners():
            known = state.jobs.get(winner)
            if known is None or not (known.status.claim or self._has_cpus(winner)):
                yield from self._let_go(winner, now_ms)

    def _has_cpus(self, winner: JobId) -> bool:
        """Whether it uses CPUs; a standby that waits to be wanted does not."""
        return any(a.state is not S.WARM for a in self._state.live_of(winner))

    def _let_go(self, winner: JobId, now_ms: int) -> _Decisions:
        self.promise.resumed(winner, now_ms)
        for victim in self._state.noted.paused_for(winner):
            yield from self._resume(self._state.jobs[victim], now_ms)

    def _resume(self, loser: r.ClusterJob, now_ms: int) -> _Decisions:
        if loser.status.phase is not JobPhase.RUNNING:
            return  # it is being stopped, which is said when it is over
        heir = self._heir(loser)
        if heir:
            reason = f"paused for job {heir}"
            yield self._state.moved(loser, now_ms, paused_for=heir, reason=reason)
            return
        for a in self._state.live_of(loser.job.id):
            yield from self.go_on(a, now_ms)
        status = loser.status
        yield self._state.moved(
            loser,
            now_ms,
            paused_for=JobId(""),
            paused_ms=status.paused_ms + now_ms - status.paused_at_ms,
            resumed_at_ms=now_ms,
            reason="",
        )
        _remember(self._stood, loser.job.id, None)
        self._rests.append(now_ms + QUANTUM_MS)
        self._attempts.tell_later(loser.job.id, now_ms)

    def rested(self, now_ms: int) -> bool:
        """Whether some have run for their quantum since this was asked last."""
        ended = False
        while self._rests and self._rests[0] <= now_ms:
            self._rests.popleft()
            ended = True
        return ended

    def unless_wanted(self, a: Allocation, now_ms: int) -> _Decisions:
        """It stands still, as its node says; for nobody that is known here, it goes on."""
        known = self._state.jobs[a.job]
        if not known.status.paused_for and known.status.phase is JobPhase.RUNNING:
            yield from self.go_on(self._state.allocations[a.id], now_ms)

    def go_on(self, a: Allocation, now_ms: int) -> _Decisions:
        """Order a replica that stands still to go on."""
        if a.state in (S.PAUSING, S.PAUSED):
            resuming = replace(a, state=S.RESUMING, generation=a.generation + 1, on_disk=False)
            yield r.AllocationMoved(resuming)
            self._orders.sent(a.id, now_ms)
            yield m.SendToNode(a.node, m.Resume(a.id, resuming.generation))

    def _heir(self, loser: r.ClusterJob) -> JobId:
        """Who runs on the CPUs of a job that could go on otherwise: the one for which the job that
        it stood still for stood still itself. Empty: they are free."""
        state = self._state
        for own in state.live_of(loser.job.id):
            here = [a for a in state.live_on(own.node) if a.job != loser.job.id]
            claimants = [state.jobs[job] for job in state.claimants_on(own.node)]
            warm = {a.id for a in here if a.state is S.WARM}
            still = [a for a in here if state.jobs[a.job].status.paused_for or a.id in warm]
            lender = next((a for a in here if self._wants_gpus_of(a, own)), None)
            if lender is not None:
                return lender.job
            for known in claimants:
                if not known.status.claims_over:  # others leave for it: it waits until they have
                    still += [a for a in state.claims[known.job.id] if a.node == own.node]
            lent = sum(a.request.cpus_milli for a in still)
            if state.snapshot.free(own.node).cpus_milli + lent >= 0:
                continue
            over = [state.jobs[a.job] for a in here if a.id not in warm]
            over = [known for known in over if not known.status.paused_for]
            over += [known for known in claimants if known.status.claims_over]
            over = [known for known in over if known.job.priority > loser.job.priority]
            if over:
                return max(over, key=lambda known: known.order).job.id
        return JobId("")

    def _wants_gpus_of(self, a: Allocation, own: Allocation) -> bool:
        """A standby that is wanted, and shares a GPU with it."""
        is_standby = self._state.jobs[a.job].job.standby is not None
        return is_standby and a.state is S.RUNNING and share_gpus(a, own)

    def each_second(self, now_ms: int) -> _Decisions:
        """Stop those that have stood still for too long."""
        for winner in self._state.noted.winners():
            for victim in self._state.noted.paused_for(winner):
                loser = self._state.jobs[victim]
                status, hold_s = loser.status, loser.job.pausing.hold_s
                held_ms = now_ms - status.paused_at_ms
                if status.phase is JobPhase.RUNNING and held_ms >= 1000 * hold_s:
                    if self._can_lie_aside(loser):
                        yield from self._set_aside(loser, now_ms)
                        continue
                    why = f"after it had stood still for {hold_s:g}s"
                    if status.saved_at_ms >= status.paused_at_ms and loser.job.pausing.at:
                        why += f"; step {status.checkpoints[-1].step} is saved"
                    yield from self.give_up(loser, why, now_ms)

    def _can_lie_aside(self, loser: r.ClusterJob) -> bool:
        """Whether all of it is on its nodes' disks, on its way there, or could be set aside there.
        What runs again has not let itself be."""
        live = self._state.live_of(loser.job.id)
        nodes = (self._state.nodes[a.node].node for a in live)
        able = loser.job.pausing.criu and not any(a.request.gpus_milli for a in live)
        able = able and all(CRIU in node.abilities for node in nodes)
        return able and all(a.state is S.PAUSED or (a.on_disk and a.state in _STOOD) for a in live)

    def _set_aside(self, loser: r.ClusterJob, now_ms: int) -> _Decisions:
        for a in self._state.live_of(loser.job.id):
            if not a.on_disk:
                aside = replace(a, on_disk=True)
                yield from self.order(aside, loser, loser.status.paused_for, now_ms)

    def give_up(self, loser: r.ClusterJob, why: str, now_ms: int) -> _Decisions:
        """It is stopped after all, for the one that it stands still for."""
        status = loser.status
        reason = f"preempted by job {status.paused_for}, {why}"
        more: dict[str, Any] = {"preemptions": status.preemptions + 1}
        if self._shares_gpus(loser, status.paused_for):
            away_ms = STAYS_AWAY_MS << min(status.preemptions, MOST_DOUBLINGS)
            more["not_before_ms"] = now_ms + away_ms
        yield from self._attempts.stop(loser, JobPhase.QUEUED, reason, now_ms, **more)

    def _shares_gpus(self, loser: r.ClusterJob, winner: JobId) -> bool:
        """Whether a standby that is wanted has a part of one of its GPUs."""
        theirs = self._state.live_of(winner)
        own = self._state.live_of(loser.job.id)
        return any(self._wants_gpus_of(a, b) for a in theirs for b in own)


def share_gpus(one: Allocation, other: Allocation) -> bool:
    """Whether both have a part of the same device of their node."""
    both = one.node == other.node and one.request.gpus_milli and other.request.gpus_milli
    return bool(both and set(one.devices) & set(other.devices))


def _remember(known: dict[_K, _T], key: _K, what: _T) -> None:
    """The oldest is forgotten for it if there are too many."""
    if key not in known and len(known) >= MOST_REMEMBERED:
        del known[next(iter(known))]
    known[key] = what
