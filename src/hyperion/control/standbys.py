"""Jobs that are there before they are wanted: who borrows their CPUs or shares their GPUs, and who
then stands still.

Whom a standby pushes aside is decided ahead of time and told to its node (``Guard``), so that
between the request and the standstill there is no decision, no message and no disk. What has
happened is told here afterwards.
"""

from collections.abc import Iterator
from typing import Any

from hyperion.control import gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.cluster_state import ClusterState
from hyperion.control.lending import may_borrow
from hyperion.control.pausing import Pausing, share_gpus
from hyperion.control.seating import Seating
from hyperion.model.allocation import Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import AllocationId, NodeId
from hyperion.model.job import JobPhase
from hyperion.placement import planner
from hyperion.placement.planner import Plan
from hyperion.placement.ranking import Policy

_Decisions = Iterator[Any]
MOST_GUARDED = 200
"""Who stands still at once for a standby; its scheduler sees to the rest."""
_RUNS = (S.RUNNING, S.RESUMING)
_IDLE = (S.WARM, S.PAUSING, S.PAUSED)
REPORTS_WITHIN_MS = 50
"""So long after a standby was activated its node may still be telling who stands still for it."""
WARM = "waits to be wanted; its CPUs are lent"


class Standbys:
    def __init__(
        self, policy: Policy, state: ClusterState, seating: Seating, pausing: Pausing
    ) -> None:
        self._policy = policy
        self._state = state
        self._seating = seating
        self._pausing = pausing
        self._told: dict[AllocationId, m.Guard] = {}
        """The newest guard of each. Soft: a node that attaches is told again."""
        self._active_ms: dict[AllocationId, int] = {}
        """When each was last heard to be active. Soft."""

    # -- rounds ---------------------------------------------------------------------------------

    def plan(self, known: r.ClusterJob, room: int, now_ms: int) -> Plan | None:
        """Where the job could start on CPUs that are lent, to it or to others: what borrowers have
        counts twice as long as its lender is there, and one that borrows nothing may use it once,
        for the lender has its own without it."""
        state = self._state
        lending = state.occupancy.lending
        if not lending:
            return None
        with lending.lent(None if may_borrow(known.job) else self._borrowed) as anything:
            if not anything:
                return None
            wish = self._seating.wish(known, room, now_ms)
            found = planner.plan(state.snapshot, wish, self._policy, state.calendar, now_ms)
        return found if isinstance(found, Plan) else None

    def _borrowed(self, node: NodeId) -> int:
        here = self._state.live_on(node)
        jobs = self._state.jobs
        return sum(a.request.cpus_milli for a in here if may_borrow(jobs[a.job].job))

    def guard(self, now_ms: int) -> _Decisions:
        """Tell nodes who is to stand still for whom, where that has changed."""
        lending = self._state.occupancy.lending
        changed, lending.changed = lending.changed, set()
        for id in self._told.keys() - lending.seats.keys():
            del self._told[id]
            self._active_ms.pop(id, None)
        for node in sorted(changed):
            yield from self._crowded(node, now_ms)
            for a in lending.on(node):
                if a.state not in (S.RUNNING, S.WARM):
                    continue
                guard = m.Guard(a.id, self._victims(a))
                if self._told.get(a.id) != guard:
                    self._told[a.id] = guard
                    yield m.SendToNode(node, guard)

    def attached(self, node: NodeId) -> None:
        """Its agent may know nothing of what it was told."""
        lending = self._state.occupancy.lending
        for a in lending.on(node):
            self._told.pop(a.id, None)
            lending.changed.add(node)

    def _victims(self, standby: Allocation) -> tuple[m.Yielding, ...]:
        """Whom it takes to stand still so that the standby has its CPUs, and its GPUs to itself,
        were it wanted now."""
        state = self._state
        winner = state.jobs[standby.job].job
        here = [a for a in state.live_on(standby.node) if a.id != standby.id]
        idle = sum(a.request.cpus_milli for a in here if self._is_idle(a))
        lacks = -(state.snapshot.free(standby.node).cpus_milli + idle)
        chosen: list[m.Yielding] = []
        able = [a for a in here if self._yields(a, winner.priority)]
        able.sort(key=lambda a: (state.jobs[a.job].job.priority, -a.started_at_ms, a.id))
        beside = [a for a in able if share_gpus(a, standby)]
        for n, a in enumerate([*beside, *(a for a in able if a not in beside)]):
            if (lacks <= 0 and n >= len(beside)) or len(chosen) >= MOST_GUARDED:
                break
            lacks -= a.request.cpus_milli
            hold_ms = gang.hold_ms(state.jobs[a.job].job)
            chosen.append(m.Yielding(a.id, hold_ms))
        return tuple(chosen)

    def _is_idle(self, a: Allocation) -> bool:
        """It uses no CPUs, or will not in an instant."""
        return a.state in _IDLE or bool(self._state.jobs[a.job].status.paused_for)

    def _yields(self, a: Allocation, priority: int) -> bool:
        known = self._state.jobs[a.job]
        if a.state not in _RUNS or known.status.phase is not JobPhase.RUNNING:
            return False
        able = known.job.can_stand_still and known.job.priority < priority
        return able and self._pausing.can_pause(a)

    def _crowded(self, node: NodeId, now_ms: int) -> _Decisions:
        """Somebody began on lent CPUs too late for the guard: he stands still after all."""
        state = self._state
        for a in state.occupancy.lending.on(node):
            if a.state is not S.RUNNING or node in state.silent:
                continue
            if now_ms - self._active_ms.get(a.id, 0) < REPORTS_WITHIN_MS:
                state.occupancy.lending.changed.add(node)  # look again, with the next tick
                continue
            known = state.jobs[a.job]
            for victim in self._victims(a):
                loser = state.jobs[state.allocations[victim.allocation].job]
                if not loser.status.paused_for:
                    yield from self._pausing.stand(loser, known.job.id, now_ms)

    # -- what nodes tell ------------------------------------------------------------------------

    def hear(self, a: Allocation, report: m.AllocationReport, now_ms: int) -> _Decisions:
        """A replica has moved to where ``report`` says it is; ``a`` is what it is now."""
        state = self._state
        known = state.jobs[a.job]
        if report.stands_for and a.state is S.PAUSED and not known.status.paused_for:
            winner = state.allocations.get(report.stands_for)
            if winner is None or winner.state.is_terminal:
                yield from self._pausing.go_on(a, now_ms)
            else:
                yield from self._pausing.stand(known, winner.job, now_ms)
        if known.job.standby is None:
            yield from self._insist(a, known, now_ms)
            return
        if a.state is S.RUNNING:
            self._active_ms[a.id] = now_ms
        if known.status.phase is not JobPhase.RUNNING:
            return
        live = state.live_of(a.job)
        reason = WARM if all(x.state is S.WARM for x in live) else ""
        if known.status.reason != reason:
            yield state.moved(known, now_ms, reason=reason)
            self._pausing.tell_later(a.job, now_ms)

    def _insist(self, a: Allocation, known: r.ClusterJob, now_ms: int) -> _Decisions:
        """Who did not stand still for a standby, or not for as long as it was wanted, must go; who
        runs since an older order has come after a newer one is told again."""
        lender = self._state.jobs.get(known.status.paused_for)
        if a.state is not S.RUNNING or lender is None or lender.job.standby is None:
            return
        if known.status.phase is not JobPhase.RUNNING:
            return
        if a.reason:
            yield from self._pausing.give_up(known, a.reason, now_ms)
        else:
            yield from self._pausing.order(a, known, lender.job.id, now_ms)
