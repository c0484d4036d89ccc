"""What happens at its hour: deadlines, windows that begin and end, promises to those that wait."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control import turns
from hyperion.control.attempts import Attempts
from hyperion.control.cluster_state import ClusterState
from hyperion.control.seating import Seating
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase
from hyperion.model.window import Window, check_window
from hyperion.placement.calendar import MOST_WINDOWS
from hyperion.placement.earliest import earliest
from hyperion.placement.ranking import Policy

_Decisions = Iterator[Any]
PROMISES = 8
"""Starts that are reserved at once, for the first of those that do not fit."""
HOPELESS_MS = 30_000
"""A job for which no start was found is looked at again after this long."""
PROMISED_AT_ONCE = 2
"""Promises that are made, or looked at anew, in a second."""
ENDED_AT_ONCE = 1000
HISTORY_MS = 60_000
"""How often decayed use and learned run times are kept; a crash forgets the time since."""


class Appointments:
    def __init__(
        self, policy: Policy, state: ClusterState, seating: Seating, attempts: Attempts
    ) -> None:
        self._policy = policy
        self._state = state
        self._seating = seating
        self._attempts = attempts
        self._kept_ms = 0
        self._turn = 0
        self._next_change_ms: int | None = None
        self._first_ms: dict[JobId, int] = {}
        """When each promised start was to be, as promised first."""
        self._hopeless: dict[JobId, int] = {}
        """Jobs for which no start was found, and when."""

    def each_second(self, now_ms: int) -> _Decisions:
        yield from self._end_overdue(now_ms)
        yield from self._keep_windows(now_ms)
        yield from self._clear_overrun(now_ms)
        self._promise(now_ms)
        yield from self._seating.grow(now_ms)
        if now_ms - self._kept_ms >= HISTORY_MS:
            if self._kept_ms:
                yield self._state.history(now_ms)
            self._kept_ms = now_ms

    def times_changed(self, now_ms: int) -> bool:
        """Whether a window or a promised start has begun or ended since last asked."""
        due_ms = self._next_change_ms
        self._next_change_ms = self._state.calendar.next_change_ms(now_ms)
        return due_ms is not None and due_ms <= now_ms

    # -- windows --------------------------------------------------------------------------------

    def apply_window(self, window: Window, token: int, now_ms: int) -> _Decisions:
        faults = check_window(window, now_ms, self._state.nodes)
        if faults:
            text = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults)
            yield m.Answer(token, error=text, code="conflict")
            return
        if len(self._state.windows) >= MOST_WINDOWS and window.id not in self._state.windows:
            error = f"there are {MOST_WINDOWS} windows already; cancel some first"
            yield m.Answer(token, error=error, code="exhausted")
            return
        yield r.WindowKept(window, now_ms)
        yield from self._keep_windows(now_ms)
        yield m.Answer(token)

    def cancel_window(self, event: m.WindowCancelled, now_ms: int) -> _Decisions:
        if event.window not in self._state.windows:
            known = ", ".join(sorted(self._state.windows)[:10]) or "none"
            error = f"no window {event.window} (there are: {known})"
            yield m.Answer(event.token, error=error, code="not_found")
            return
        yield r.WindowDropped(event.window, now_ms)
        yield m.Answer(event.token)

    def _keep_windows(self, now_ms: int) -> _Decisions:
        """Those that are over go; those that have begun see to it that their nodes are theirs."""
        state = self._state
        for job_id in state.noted.reserved():
            known = state.jobs[job_id]
            idle = state.wants_place(known) and not state.live_of(job_id)
            if idle and state.calendar.over(known.job, now_ms):
                reason = f"its reservation {known.job.reservation} has ended, or never was"
                yield from self._attempts.arrive(known, JobPhase.FAILED, reason, now_ms)
        begun = [w for w in state.windows.values() if w.begins_at_ms <= now_ms]
        nodes = {node for window in begun for node in window.nodes if node in state.nodes}
        there = [a for node in sorted(nodes) for a in state.live_on(node)]
        there += [a for job_id in state.noted.reserved() for a in state.live_of(job_id)]
        jobs = {a.job: state.jobs[a.job].job for a in there}
        for a, id in list(state.calendar.stopped_by(now_ms, there, jobs)):
            reason = f"node {a.node} is needed for window {id}, or the window is over"
            yield from self._attempts.clear(state.allocations[a.id], reason, now_ms)
        for window in begun:
            if window.ends_at_ms <= now_ms:
                yield r.WindowDropped(window.id, now_ms)

    # -- promises -------------------------------------------------------------------------------

    def _promise(self, now_ms: int) -> None:
        """Reserve a start for the first of those that find no room, so that small jobs behind them
        cannot keep them waiting for ever. Soft: made anew after a restart."""
        state = self._state
        self._hopeless = {
            job: at_ms for job, at_ms in self._hopeless.items() if now_ms - at_ms < HOPELESS_MS
        }
        first = turns.first_blocked(state, PROMISES)
        for job_id in [j for j in state.calendar.promises if j not in first]:
            state.withdraw(job_id)
            self._first_ms.pop(job_id, None)
        for job_id in self._next_promised(first):
            known = state.jobs[job_id]
            wish = self._seating.wish(known, 1, now_ms)
            promise = earliest(
                state.snapshot, state.running, state.calendar, wish, self._policy, now_ms
            )
            before = state.calendar.promises.get(job_id)
            if promise is None:
                self._hopeless[job_id] = now_ms
                state.withdraw(job_id)
                continue
            if before is not None and before.seats != promise.seats:
                state.withdraw(job_id)
            self._first_ms.setdefault(job_id, promise.at_ms)
            state.calendar.promise(promise)

    def _next_promised(self, first: list[JobId]) -> list[JobId]:
        """New ones before known ones, and those in turn: each look costs milliseconds."""
        promised = self._state.calendar.promises
        new = [job for job in first if job not in promised and job not in self._hopeless]
        known = [job for job in first if job in promised]
        self._turn = (self._turn + 1) % max(1, len(known))
        return (new + known[self._turn :] + known[: self._turn])[:PROMISED_AT_ONCE]

    def _hold_to_first(self, now_ms: int) -> None:
        """Guests are measured against the time that was promised first, however late it gets."""
        for job_id, promise in list(self._state.calendar.promises.items()):
            first_ms = self._first_ms.get(job_id, promise.at_ms)
            if first_ms <= now_ms < promise.at_ms:
                self._state.calendar.promise(replace(promise, at_ms=first_ms))

    def _clear_overrun(self, now_ms: int) -> _Decisions:
        """Jobs let in for a while before a promised start, and that are still there when it has
        come, make way."""
        self._hold_to_first(now_ms)
        reason = "ran longer than expected, into a start promised to another job"
        for job_id in self._state.calendar.overdue(self._state.running, now_ms):
            self._seating.overran(job_id)
            for a in self._state.live_of(job_id):
                yield from self._attempts.clear(self._state.allocations[a.id], reason, now_ms)

    # -- deadlines ------------------------------------------------------------------------------

    def _end_overdue(self, now_ms: int) -> _Decisions:
        """Jobs of this cluster's own API; the federation sees to its own."""
        for job_id in self._state.noted.past_deadline(self._state.jobs, now_ms, ENDED_AT_ONCE):
            yield from self._end(job_id, now_ms)

    def _end(self, job_id: JobId, now_ms: int) -> _Decisions:
        known = self._state.jobs[job_id]
        status = known.status
        if status.phase is JobPhase.STOPPING and status.after_stop is JobPhase.FAILED:
            return
        reason = f"its deadline of {known.job.deadline_s:g} s has passed"
        yield from self._attempts.stop(known, JobPhase.FAILED, reason, now_ms)
