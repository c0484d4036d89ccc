"""The node agent as a state machine: which replicas this node runs, and what it reports of them.

It starts nothing without a valid lease, and ends everything when its lease ends: by then the
cluster may run the same job elsewhere.
"""

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control import saved
from hyperion.control.liveness import Holder
from hyperion.control.machine import Outcome, key, sort_out, split
from hyperion.control.replicas import STANDING, carry_out, end, moved, pause, report, settled
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import AllocationId
from hyperion.model.job import SavedCheckpoint
from hyperion.model.node import Node

_RECORDS = frozenset(
    {r.ReplicaOrdered, r.ReplicaMoved, r.ReplicaSaved, r.ReplicaForgotten, r.MarkDropped}
)
_Decisions = Iterator[
    r.ReplicaOrdered
    | r.ReplicaMoved
    | r.ReplicaSaved
    | r.ReplicaForgotten
    | r.MarkDropped
    | m.AgentCommand
]


class AgentTimes(Struct, frozen=True, kw_only=True):
    """The machine's own bounds; see the settings of the same names."""

    heartbeat_ms: int = 1000
    resend_ms: int = 2000
    """An end that nobody has acknowledged is reported again after this long."""
    refresh_ms: int = 30_000
    """A living replica is reported again after this long, in case the last report was lost."""
    mark_ms: int = 600_000
    """How long a forgotten replica is remembered; longer than any order can be on its way."""
    fence_before_ms: int = 3000
    """Fencing begins this long before the lease ends, so that it is over by then."""


class Agent:
    def __init__(self, node: Node, times: AgentTimes | None = None) -> None:
        self.node = node
        self.times = times or AgentTimes()
        self.replicas: dict[AllocationId, r.Replica] = {}
        self.marks: dict[str, r.Mark] = {}
        self.lease = Holder()
        self.attached = False
        self._live: set[AllocationId] = set()
        self._pausing: dict[AllocationId, int] = {}
        """Those being made to stand still, and the generation of the order. Not kept."""
        self._inspected: set[AllocationId] = set()
        """Those that are looked at after a restart. Whoever stands still then does so until the
        scheduler, which may have been told of it, says otherwise."""
        self._unacknowledged: dict[AllocationId, int] = {}
        """Ended or living replicas, and when each was last reported."""
        self._dirty: set[str] = set()

    # -- the machine's outside ------------------------------------------------------------------

    @property
    def wants_round(self) -> bool:
        return False

    def handle(self, event: m.AgentEvent, now_ms: int) -> Outcome:
        return sort_out(self._decide(event, now_ms), _RECORDS, self.apply)

    def round(self, now_ms: int) -> Outcome:  # noqa: ARG002 - an agent plans nothing
        return Outcome([], [])

    def resume(self, now_ms: int) -> Outcome:
        """After a restart: take up every replica where it was left."""
        return sort_out(self._take_up(now_ms), _RECORDS, self.apply)

    def restore(self, items: Iterable[tuple[str, bytes]], now_ms: int) -> None:  # noqa: ARG002
        for path, value in items:
            kind, name = split(path)
            if kind == "replica":
                replica = _REPLICA.decode(value)
                self.replicas[replica.id] = replica
                if not replica.state.is_terminal:
                    self._live.add(replica.id)
                self._unacknowledged[replica.id] = 0
            elif kind == "mark":
                self.marks[name] = _MARK.decode(value)

    def writes(self) -> dict[str, bytes | None]:
        """Every entity touched since the last call, as the store keeps it; None: delete."""
        out: dict[str, bytes | None] = {}
        for path in self._dirty:
            kind, name = split(path)
            entity: Struct | None = (
                self.replicas.get(AllocationId(name)) if kind == "replica" else self.marks.get(name)
            )
            out[path] = None if entity is None else msgspec.json.encode(entity)
        self._dirty.clear()
        return out

    def apply(self, record: Struct) -> None:
        match record:
            case r.ReplicaOrdered(replica):
                self.replicas[replica.id] = replica
                self._touch(replica)
            case r.ReplicaMoved():
                replica = self.replicas[record.id] = moved(self.replicas[record.id], record)
                self._touch(replica)
            case r.ReplicaSaved(id, checkpoints):
                replica = self.replicas[id] = replace(self.replicas[id], checkpoints=checkpoints)
                self._touch(replica)
            case r.ReplicaForgotten(id, generation, at_ms):
                self.replicas.pop(id, None)
                self._live.discard(id)
                self._pausing.pop(id, None)
                self._inspected.discard(id)
                self._unacknowledged.pop(id, None)
                self.marks.pop(id, None)  # so that the oldest stand first
                self.marks[id] = r.Mark(generation, at_ms)
                self._dirty |= {key("replica", id), key("mark", id)}
            case r.MarkDropped(name):
                self.marks.pop(name, None)
                self._dirty.add(key("mark", name))
            case _:
                raise TypeError(record)

    # -- decisions ------------------------------------------------------------------------------

    def _decide(self, event: m.AgentEvent, now_ms: int) -> _Decisions:  # noqa: PLR0912
        match event:
            case m.Run() | m.Prepare():
                yield from self._take_order(event, now_ms)
            case m.Stop(allocation, generation, grace_ms):
                yield from self._stop(allocation, generation, grace_ms, now_ms)
            case m.Pause():
                yield from self._pause(event, now_ms)
            case m.Resume(allocation, generation):
                yield from self._resume(allocation, generation, now_ms)
            case m.Forget(allocation, generation):
                replica = self.replicas.get(allocation)
                if replica and replica.state.is_terminal and generation >= replica.generation:
                    yield r.ReplicaForgotten(allocation, replica.generation, now_ms)
                    yield m.DropReplica(allocation)
            case m.ReplicaStarted() | m.ReplicaPrepared() | m.ReplicaExited():
                yield from self._hear_runtime(event, now_ms)
            case m.ReplicaPaused() | m.ReplicaSettled() | m.ReplicaResumed():
                yield from self._hear_standing(event, now_ms)
            case m.CheckpointWritten(allocation, checkpoint):
                yield from self._hear_saved(allocation, checkpoint, now_ms)
            case m.Guard(allocation):
                replica = self.replicas.get(allocation)
                if replica is not None and replica.state in _PRESENT:
                    yield m.GuardReplica(event)
            case m.ReplicaWarm(allocation):
                yield from self._hear_warm(allocation, now_ms)
            case m.ReplicaActivated():
                yield from self._hear_activated(event, now_ms)
            case m.Lease(sequence, duration_ms):
                if not self._may_run(now_ms):
                    yield from self._fence(now_ms)  # what the gap made void must not go on
                if self.lease.granted(sequence, duration_ms):
                    yield m.KeepLease(self.lease.until_ms - now_ms)
            case m.LeaseRecovered(remaining_ms):
                self.lease.recovered(now_ms, remaining_ms)
            case m.SchedulerAttached():
                self.attached = True
                self.lease.attached(now_ms)
                reports = tuple(report(x) for x in self.replicas.values())
                yield m.SendToScheduler(m.NodeHello(node=self.node, allocations=reports))
            case m.SchedulerDetached():
                self.attached = False
            case m.Tick():
                yield from self._tick(now_ms)
            case _:
                raise TypeError(event)

    def _take_order(self, order: m.Run | m.Prepare, now_ms: int) -> _Decisions:
        replica = self.replicas.get(order.allocation)
        if replica is None:
            mark = self.marks.get(order.allocation)
            if mark is not None and order.generation <= mark.generation:
                return  # the order was overtaken by the end of what it orders
            if order.known:
                lost = r.Replica(
                    id=order.allocation,
                    generation=order.generation,
                    state=S.LOST,
                    reason=f"node {self.node.id} no longer knows it",
                    ended_at_ms=now_ms,
                )
                yield r.ReplicaOrdered(lost)
                yield from self._tell(order.allocation, now_ms)
            elif self._may_run(now_ms):
                yield r.ReplicaOrdered(
                    r.Replica(id=order.allocation, generation=order.generation, order=order)
                )
                yield carry_out(order)
        elif order.generation <= replica.generation or replica.order is None:
            yield from self._tell(order.allocation, now_ms)  # it answers itself
        elif replica.state in (S.PLACED, S.READY):
            if self._may_run(now_ms):
                yield r.ReplicaOrdered(replace(replica, generation=order.generation, order=order))
                yield carry_out(order)
        else:
            yield r.ReplicaOrdered(replace(replica, generation=order.generation))
            yield from self._tell(order.allocation, now_ms)

    def _stop(self, id: AllocationId, generation: int, grace_ms: int, now_ms: int) -> _Decisions:
        replica = self.replicas.get(id)
        if replica is None:
            mark = self.marks.get(id)
            if mark is None or generation > mark.generation:
                # Nothing to stop, but a Run may still be on its way: it must find this.
                stopped = r.Replica(
                    id=id, generation=generation, state=S.STOPPED, ended_at_ms=now_ms
                )
                yield r.ReplicaOrdered(stopped)
                yield from self._tell(id, now_ms)
        elif replica.state.is_terminal or replica.state is S.STOPPING:
            if generation > replica.generation:
                yield r.ReplicaOrdered(replace(replica, generation=generation))
                if not replica.state.is_terminal:
                    yield m.KillReplica(id, grace_ms)  # perhaps with less grace than before
            yield from self._tell(id, now_ms)
        elif generation >= replica.generation:  # equal: a Pause that its scheduler has forgotten
            self._pausing.pop(id, None)
            yield r.ReplicaMoved(id=id, generation=generation, state=S.STOPPING, at_ms=now_ms)
            yield m.KillReplica(id, grace_ms)

    def _pause(self, order: m.Pause, now_ms: int) -> _Decisions:
        id, generation = order.allocation, order.generation
        replica = self.replicas.get(id)
        if replica is None:
            yield from self._miss(id, generation, now_ms)
        elif generation > replica.generation and replica.state in STANDING:
            if self._pausing.get(id, 0) < generation:
                # Nothing is kept before it is done: a disk would take longer than all the rest.
                self._pausing[id] = generation
                yield pause(order, replica)
        else:
            yield from self._answer(replica, generation, now_ms)

    def _resume(self, id: AllocationId, generation: int, now_ms: int) -> _Decisions:
        replica = self.replicas.get(id)
        if replica is None:
            yield from self._miss(id, generation, now_ms)
        elif generation < self._pausing.get(id, 0):
            return  # it was overtaken by the order to stand still again
        elif generation > replica.generation and (replica.state is S.PAUSED or id in self._pausing):
            self._pausing.pop(id, None)
            yield r.ReplicaMoved(id=id, generation=generation, state=S.RESUMING, at_ms=now_ms)
            yield m.ResumeReplica(id)
        else:
            yield from self._answer(replica, generation, now_ms)

    def _miss(self, id: AllocationId, generation: int, now_ms: int) -> _Decisions:
        """An order about a replica that once ran here, and of which nothing is known any more."""
        mark = self.marks.get(id)
        if mark is None or generation > mark.generation:
            reason = f"node {self.node.id} no longer knows it"
            lost = r.Replica(
                id=id, generation=generation, state=S.LOST, reason=reason, ended_at_ms=now_ms
            )
            yield r.ReplicaOrdered(lost)
            yield from self._tell(id, now_ms)

    def _answer(self, replica: r.Replica, generation: int, now_ms: int) -> _Decisions:
        """The order finds it done, or changes nothing any more: say where the replica stands."""
        if generation > replica.generation:
            yield r.ReplicaOrdered(replace(replica, generation=generation))
        yield from self._tell(replica.id, now_ms)

    def _hear_standing(
        self, event: m.ReplicaPaused | m.ReplicaSettled | m.ReplicaResumed, now_ms: int
    ) -> _Decisions:
        replica = self.replicas.get(event.allocation)
        if replica is None or replica.state.is_terminal:
            return
        if isinstance(event, m.ReplicaSettled):
            if replica.state is S.PAUSED and replica.id not in self._pausing:
                yield settled(replica, event, now_ms)
                yield from self._tell(replica.id, now_ms)
            return
        stands = replica.stands_for or replica.id in self._pausing
        if isinstance(event, m.ReplicaResumed) and stands and not event.reason:
            return  # as an older order said: it has been, or is being, stopped again since
        generation = self._pausing.pop(replica.id, 0)
        if isinstance(event, m.ReplicaPaused):
            freeze, reason, state = event.freeze, "", S.PAUSED
            known = generation or replica.state is S.PAUSED or replica.id in self._inspected
            self._inspected.discard(replica.id)
            if not known:
                yield m.ResumeReplica(replica.id)  # it came too late, and nobody waits for it
                return
        else:
            freeze, reason, state = None, event.reason, S.RUNNING
            self._inspected.discard(replica.id)
        if replica.state not in STANDING or (state is replica.state and not generation):
            return
        yield r.ReplicaMoved(
            id=replica.id,
            generation=max(generation, replica.generation),
            state=state,
            at_ms=now_ms,
            reason=reason,
            freeze=freeze,
        )
        yield from self._tell(replica.id, now_ms)

    def _hear_saved(self, id: AllocationId, checkpoint: SavedCheckpoint, now_ms: int) -> _Decisions:
        replica = self.replicas.get(id)
        if replica is None or replica.state.is_terminal:
            return
        newest = saved.newest((*replica.checkpoints, checkpoint))
        if newest != replica.checkpoints:
            yield r.ReplicaSaved(id, newest)
            yield from self._tell(id, now_ms)

    def _hear_warm(self, id: AllocationId, now_ms: int) -> _Decisions:
        replica = self.replicas.get(id)
        if replica is None or replica.state is not S.RUNNING:
            return
        yield _to(replica, S.WARM, now_ms, turn=replica.turn + 1)
        yield from self._tell(id, now_ms)
        yield from self._release_alone(id, now_ms)

    def _hear_activated(self, event: m.ReplicaActivated, now_ms: int) -> _Decisions:
        """It has happened already: what is left is to know of it, the standby first."""
        standby = self.replicas.get(event.allocation)
        if standby is None or standby.state not in _PRESENT:
            for id in event.frozen:
                yield m.ResumeReplica(id)
            return
        yield _to(standby, S.RUNNING, now_ms, freeze=event.freeze, turn=standby.turn + 1)
        yield from self._tell(standby.id, now_ms)
        for id in event.frozen:
            replica = self.replicas.get(id)
            if replica is not None and replica.state in _RUNS and id not in self._pausing:
                yield _to(
                    replica,
                    S.PAUSED,
                    now_ms,
                    freeze=event.freeze,
                    turn=replica.turn + 1,
                    stands_for=event.allocation,
                )
                yield from self._tell(id, now_ms)

    def _release_alone(self, standby: AllocationId, now_ms: int) -> _Decisions:
        """Those that stand still for it go on. With a scheduler there, it is he who says so, for
        somebody else may have the CPUs by then."""
        if not self.attached:
            for id in sorted(self._live):
                replica = self.replicas[id]
                if replica.stands_for == standby:
                    yield _to(replica, S.RESUMING, now_ms)
                    yield m.ResumeReplica(id)

    def _hear_runtime(
        self, event: m.ReplicaStarted | m.ReplicaPrepared | m.ReplicaExited, now_ms: int
    ) -> _Decisions:
        replica = self.replicas.get(event.allocation)
        if replica is None or replica.state.is_terminal:
            if isinstance(event, m.ReplicaStarted):  # nothing of ours may run unknown
                yield m.KillReplica(event.allocation, 0)
            return
        id, generation = replica.id, replica.generation
        match event:
            case m.ReplicaPrepared(_, address, port):
                if replica.state is not S.PLACED or not isinstance(replica.order, m.Prepare):
                    return
                yield r.ReplicaMoved(
                    id=id,
                    generation=generation,
                    state=S.READY,
                    at_ms=now_ms,
                    address=address,
                    port=port,
                )
            case m.ReplicaStarted(_, pid, started_at_ms):
                if replica.state not in (S.PLACED, S.READY):
                    return
                yield r.ReplicaMoved(
                    id=id, generation=generation, state=S.RUNNING, at_ms=started_at_ms, pid=pid
                )
            case m.ReplicaExited():
                state, reason = end(replica, event)
                yield r.ReplicaMoved(
                    id=id,
                    generation=max(generation, self._pausing.pop(id, 0)),
                    state=state,
                    at_ms=now_ms,
                    fenced=replica.fenced,
                    exit_code=event.exit_code,
                    reason=reason,
                )
                yield from self._release_alone(id, now_ms)
        yield from self._tell(id, now_ms)

    def _tick(self, now_ms: int) -> _Decisions:
        if self.attached and now_ms - self.lease.heartbeat_at_ms >= self.times.heartbeat_ms:
            fresh = self.lease.is_fresh(now_ms, self.times.heartbeat_ms)
            sequence = self.lease.beat(now_ms)
            yield m.SendToScheduler(m.NodeHeartbeat(sequence=sequence, fresh=fresh))
        if not self._may_run(now_ms):
            yield from self._fence(now_ms)
        if self.attached:
            for id in [
                x for x, sent_ms in self._unacknowledged.items() if self._due(x, sent_ms, now_ms)
            ]:
                yield from self._tell(id, now_ms)
        before_ms = now_ms - self.times.mark_ms
        old = takewhile(lambda mark: mark[1].at_ms < before_ms, self.marks.items())
        for name in [name for name, _ in old]:
            yield r.MarkDropped(name)

    def _fence(self, now_ms: int) -> _Decisions:
        """The lease is all but over: whatever runs here may run elsewhere a moment later."""
        for id in sorted(self._live):
            replica = self.replicas[id]
            if not replica.fenced:
                yield _to(
                    replica,
                    S.STOPPING,
                    now_ms,
                    fenced=True,
                    reason="cut off from the scheduler until the lease ended",
                )
                yield m.KillReplica(id, min(1000, self._margin_ms // 2))

    def _take_up(self, now_ms: int) -> _Decisions:
        if not self._may_run(now_ms):
            yield from self._fence(now_ms)
        for id in sorted(self._live):
            replica = self.replicas[id]
            if replica.state is S.STOPPING or replica.order is None:
                if not replica.fenced:
                    yield m.KillReplica(id, 1000)
                else:
                    yield m.KillReplica(id, 0)
            elif replica.state is not S.READY or isinstance(replica.order, m.Run):
                yield carry_out(replica.order)
                if replica.state in (S.RUNNING, S.PAUSED):
                    self._inspected.add(id)
                    yield m.InspectReplica(id)
                elif replica.state is S.RESUMING:
                    yield m.ResumeReplica(id)

    def _may_run(self, now_ms: int) -> bool:
        return self.lease.is_valid(now_ms + self._margin_ms)

    @property
    def _margin_ms(self) -> int:
        return self.lease.margin_ms(self.times.fence_before_ms)

    def _tell(self, id: AllocationId, now_ms: int) -> _Decisions:
        replica = self.replicas[id]
        self._unacknowledged[id] = now_ms
        if self.attached:
            yield m.SendToScheduler(report(replica))

    def _due(self, id: AllocationId, sent_ms: int, now_ms: int) -> bool:
        ended = self.replicas[id].state.is_terminal
        return now_ms - sent_ms >= (self.times.resend_ms if ended else self.times.refresh_ms)

    def _touch(self, replica: r.Replica) -> None:
        self._dirty.add(key("replica", replica.id))
        self._unacknowledged.setdefault(replica.id, 0)
        if replica.state.is_terminal:
            self._live.discard(replica.id)
        else:
            self._live.add(replica.id)


_RUNS = (S.RUNNING, S.RESUMING)
_PRESENT = (S.RUNNING, S.WARM)
"""What a standby is in as long as it is there."""
_REPLICA = msgspec.json.Decoder(r.Replica)
_MARK = msgspec.json.Decoder(r.Mark)


def _to(replica: r.Replica, state: S, now_ms: int, **facts: Any) -> r.ReplicaMoved:
    """It is in another state, by the order that it has obeyed last."""
    return r.ReplicaMoved(
        id=replica.id, generation=replica.generation, state=state, at_ms=now_ms, **facts
    )
