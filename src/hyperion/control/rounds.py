"""A cluster's round: what waits is placed from one snapshot, and what does not fit is told why."""

from collections.abc import Generator, Hashable, Iterator
from typing import Any

from hyperion.control import gang
from hyperion.control import records as r
from hyperion.control.blocked import Blocked
from hyperion.control.cluster_state import ClusterState
from hyperion.control.entitlement import EVERY_BORROWER, MOST_BORROWERS, entitlement
from hyperion.control.preempting import Preempting
from hyperion.control.seating import Seating
from hyperion.control.standbys import Standbys
from hyperion.control.uplink import ClusterTimes, Uplink
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase
from hyperion.placement import planner
from hyperion.placement.fairness import Admission
from hyperion.placement.planner import Plan, Unplaceable, Wish
from hyperion.placement.preemption import Eviction, NoVictims, Obstacle, Rights, victims
from hyperion.placement.quota import waiting_text
from hyperion.placement.ranking import Policy

_Decisions = Iterator[Any]
_Tried = Generator[Any, None, bool]
EXPLAIN_AFTER_MS = 1000
"""Most waits are shorter, and need no reason beside them."""
NEVER = "would not fit even if all were empty"
RECLAIM_MS = 5000
"""How often jobs whose quota others have borrowed look anew for somebody to stop."""
SEARCHES_PER_ROUND = 256
"""Looks for victims in one round; the rest comes in the next one."""


class Rounds:
    def __init__(
        self,
        policy: Policy,
        times: ClusterTimes,
        state: ClusterState,
        uplink: Uplink,
        seating: Seating,
        preempting: Preempting,
        standbys: Standbys,
    ) -> None:
        self.due = True
        self.blocked = Blocked()
        self._policy = policy
        self._times = times
        self._state = state
        self._uplink = uplink
        self._seating = seating
        self._preempting = preempting
        self._standbys = standbys
        self._asked: tuple[r.ClusterJob, Admission] | None = None
        """Whose wish the planner was given last."""
        self._reclaiming: list[r.ClusterJob] = []
        self._room = 0
        """Replicas that this round may still place."""
        self._searches = 0
        self._reclaimed_ms = 0

    @property
    def refusals(self) -> dict[Hashable, Unplaceable]:
        """Why the jobs of a blocked shape do not fit, by shape."""
        return self.blocked.refusals

    def freed(self) -> None:
        """Nodes have come or opened: whoever did not fit may try again."""
        self.due = True
        self._state.queue.unblock()
        self.blocked.clear()

    def look_again(self, now_ms: int) -> None:
        """Who may be stopped changes with time: some have run for long enough now."""
        self.blocked.keep(self._state.queue.blocked)
        for shape in self.blocked.to_look_at():
            self._unblock(shape)
            self.due = True
        if now_ms - self._reclaimed_ms >= RECLAIM_MS:
            self._reclaimed_ms = now_ms
            self._state.queue.unblock_quota()
            self.due = True

    def place(self, now_ms: int) -> _Decisions:
        """Place what waits, in order, as far as it fits."""
        self._state.occupancy.see_capacity()
        for shape in self.blocked.hopeful(self._state.snapshot, self._state.occupancy.freed):
            self._unblock(shape)
        if self._state.occupancy.lending.grown:
            self._state.occupancy.lending.grown = False
            self.freed()  # who may borrow looks at more than what is free
        self._state.occupancy.freed.clear()
        self._room = self._times.placements_per_round
        self._searches = SEARCHES_PER_ROUND
        self._reclaiming.clear()
        may_run = self._uplink.may_run(now_ms)
        yield from self._preempting.pausing.settle(now_ms)
        yield from self._claimants(may_run, now_ms)
        wishes = self._wishes(now_ms, may_run)
        while (yield from self._pass(wishes, now_ms)):
            pass  # somebody was preempted: the rows have changed, so look at them anew
        for job_id in [known.job.id for known in self._reclaiming]:
            known = self._state.jobs[job_id]
            if self._searches <= 0:
                break  # they are the first of the next round
            if not (yield from self._preempt(known, now_ms)):
                self._state.queue.pass_over(known.job.id)
        if self._state.occupancy.lending.changed:
            yield from self._standbys.guard(now_ms)
        self.due = self._room <= 0 or self._searches <= 0 or bool(self._state.occupancy.freed)

    def explain(self, now_ms: int) -> _Decisions:
        """Write the reason beside the first jobs of each shape that has not fitted for a while."""
        for shape, jobs in self._state.queue.shapes_blocked():
            refusal = self.refusals.get(shape)
            if refusal is None:
                continue
            yield from self._tell(jobs, gang.refusal_text(refusal), now_ms)
        tree = self._state.occupancy.tree
        for queue, need, jobs in self._state.queue.over_quota():
            limit = tree.refusal(queue, need)
            if limit is not None:
                yield from self._tell(jobs, waiting_text(limit), now_ms)

    def _tell(self, jobs: list[JobId], text: str, now_ms: int) -> _Decisions:
        for job_id in jobs:
            known = self._state.jobs[job_id]
            waited_ms = now_ms - known.submitted_at_ms
            ripe = waited_ms >= EXPLAIN_AFTER_MS and not known.status.claim
            if ripe and known.status.reason != text:
                yield self._state.moved(known, now_ms, reason=text)
                yield from self._uplink.tell(job_id, now_ms)

    # -- one pass over the waiting --------------------------------------------------------------

    def _pass(self, wishes: Iterator[Wish], now_ms: int) -> _Tried:
        """Returns whether there is more to do, on other rows than before."""
        state = self._state
        results = planner.plan_round(state.snapshot, wishes, self._policy, state.calendar, now_ms)
        for result in results:
            assert self._asked is not None, "the planner answered before it was asked"
            known, _ = self._asked
            if isinstance(result, Plan):
                if not state.occupancy.admits_plan(known.job, result):
                    state.queue.pass_over(known.job.id)
                    continue
                yield from self._seating.start(known, result, now_ms)
                self._room -= len(result.seats)
                if self._room <= 0:
                    return False
            elif (yield from self._borrow(known, now_ms)) or (
                yield from self._preempt(known, now_ms)
            ):
                return True
            else:
                yield from self._block(known, result, now_ms)
        return False

    def _wishes(self, now_ms: int, federated_too: bool) -> Iterator[Wish]:
        state = self._state
        for job_id, admission in state.queue.candidates(now_ms):
            known = state.jobs[job_id]
            if (known.federated and not federated_too) or job_id in state.claims:
                continue
            if not admission.at_once:
                self._reclaiming.append(known)
                continue
            self._asked = (known, admission)
            yield self._seating.wish(known, self._room, now_ms)

    def _borrow(self, known: r.ClusterJob, now_ms: int) -> _Tried:
        """Start it on CPUs that standbys lend, to it or to others; whether it fits there."""
        plan = self._standbys.plan(known, self._room, now_ms)
        if plan is None or not self._state.occupancy.admits_plan(known.job, plan):
            return False
        yield from self._seating.start(known, plan, now_ms)
        self._room -= len(plan.seats)
        return True

    def _block(self, known: r.ClusterJob, refusal: Unplaceable, now_ms: int) -> _Decisions:
        """Pass over its likes until something is freed; what can never fit goes back."""
        urgent = entitlement(self._state.occupancy.tree, known.job) is not None
        if urgent and self._searches <= 0:
            return  # nobody has looked for victims yet: that comes in the next round
        shape = self._state.queue.shape_of(known.job.id)
        self._state.queue.block(shape, "" if refusal.ever else NEVER)
        self.blocked.add(shape, known.job, refusal, urgent=urgent)
        at_home = self._state.has_ready_nodes() and not self._state.live_of(known.job.id)
        if known.federated and not refusal.ever and at_home:
            yield self._state.moved(
                known,
                now_ms,
                phase=JobPhase.CANCELLED,
                reason=gang.refusal_text(refusal),
                refused=True,
                ended_at_ms=now_ms,
            )
            yield from self._uplink.tell(known.job.id, now_ms)

    def _unblock(self, shape: Hashable) -> None:
        self._state.queue.unblock_shape(shape)
        self.blocked.remove(shape)

    # -- room made by preemption ----------------------------------------------------------------

    def victims(self, known: r.ClusterJob, now_ms: int) -> Eviction | None:
        """Whom a round would stop for it; changes nothing."""
        rights = entitlement(self._state.occupancy.tree, known.job)
        found = self._victims(known, rights, now_ms) if rights is not None else None
        return found if isinstance(found, Eviction) else None

    def lets_stand_still(self, known: r.ClusterJob, eviction: Eviction, now_ms: int) -> bool:
        """Whether the victims would be paused instead of stopped."""
        return self._preempting.pausing.will_do(known, eviction, now_ms)

    def _preempt(self, known: r.ClusterJob, now_ms: int) -> _Tried:
        """Returns whether others were stopped for it."""
        state = self._state
        rights = entitlement(state.occupancy.tree, known.job)
        if rights is None or self._searches <= 0:
            return False
        if not rights.owed and not state.occupancy.admits(known.job):
            return False  # enough is being stopped already
        self._searches -= 1
        found = self._victims(known, rights, now_ms)
        if isinstance(found, NoVictims) and len(rights.borrowed) == MOST_BORROWERS:
            every = entitlement(state.occupancy.tree, known.job, most=EVERY_BORROWER)
            if every is not None and len(every.borrowed) > MOST_BORROWERS:
                self._searches -= 1
                found = self._victims(known, every, now_ms)
        if isinstance(found, Eviction):
            yield from self._preempting.evict(known, found, now_ms)
            return True
        if found.reason is Obstacle.FITS:
            return (yield from self._start_after_all(known, now_ms))
        if found.plan is None:
            return False
        yield from self._preempting.claim(known, found.plan, now_ms)
        return True

    def _victims(self, known: r.ClusterJob, rights: Rights, now_ms: int) -> Eviction | NoVictims:
        """Those that are tired of standing still, and would have to be stopped, are looked at only
        where nobody else would stand still."""
        pausing = self._preempting.pausing
        tired = pausing.tired(now_ms)
        if tired and not any(request.gpus_milli for request in known.job.alternatives):
            found = self._search(known, rights, now_ms, tired)
            if isinstance(found, Eviction) and pausing.will_do(known, found, now_ms):
                return found
        return self._search(known, rights, now_ms)

    def _search(
        self,
        known: r.ClusterJob,
        rights: Rights,
        now_ms: int,
        spared: frozenset[JobId] = frozenset(),
    ) -> Eviction | NoVictims:
        state = self._state
        wish = self._seating.wish(known, self._room, now_ms)
        return victims(
            state.snapshot,
            state.running,
            wish,
            self._policy,
            rights,
            state.calendar,
            now_ms,
            counted=False,
            spared=spared,
        )

    def _start_after_all(self, known: r.ClusterJob, now_ms: int) -> _Tried:
        """Nobody need stop for it any more: what was given back in this round will do."""
        state = self._state
        if not state.occupancy.admits(known.job):
            return False
        wish = self._seating.wish(known, self._room, now_ms)
        plan = planner.plan(state.snapshot, wish, self._policy, state.calendar, now_ms)
        if not isinstance(plan, Plan):
            return False
        yield from self._seating.start(known, plan, now_ms)
        self._room -= len(plan.seats)
        return True

    def _claimants(self, may_run: bool, now_ms: int) -> _Decisions:
        """Those for whom others were stopped come first, as soon as the places are clear."""
        state = self._state
        waiting = [state.jobs[job] for job in state.claims]
        waiting.sort(key=lambda known: (-known.job.priority, known.order))
        for known in waiting:
            if (known.federated and not may_run) or not state.wants_place(known):
                continue
            if known.status.claims_over:
                yield from self._preempting.pausing.start(known, now_ms)
                continue
            plan = self._plan_claimed(known, now_ms)
            if plan is not None:
                yield from self._seating.start(known, plan, now_ms)
            elif now_ms >= known.status.claimed_until_ms:
                yield state.moved(known, now_ms, claim=(), reason="")

    def _plan_claimed(self, known: r.ClusterJob, now_ms: int) -> Plan | None:
        """Where it could start now, were its own claim given up for that; the claim stays."""
        state = self._state
        with state.occupancy.without_claim(known) as admitted:
            if not admitted:
                return None
            wish = self._seating.wish(known, self._room, now_ms)
            found = planner.plan(state.snapshot, wish, self._policy, state.calendar, now_ms)
            if not isinstance(found, Plan):
                return self._standbys.plan(known, self._room, now_ms)
        return found
