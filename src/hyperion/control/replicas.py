"""A replica as its agent keeps it: how it moves, what its end means, what is reported. Pure."""

from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.model.allocation import AllocationState as S
from hyperion.model.job import Pausing

STANDING = (S.RUNNING, S.PAUSED, S.RESUMING)
"""It has processes, and they may run or stand still."""


def carry_out(order: m.Run | m.Prepare) -> m.AgentCommand:
    return m.LaunchReplica(order) if isinstance(order, m.Run) else m.PrepareReplica(order)


def pause(order: m.Pause, replica: r.Replica) -> m.PauseReplica:
    asked = None if order.at_once else replica.order
    how = asked.job.pausing if asked is not None else Pausing()
    return m.PauseReplica(
        allocation=order.allocation,
        hold_ms=order.hold_ms,
        on_disk=order.on_disk,
        at=how.at,
        asked_ms=how.asked_ms,
    )


def end(replica: r.Replica, event: m.ReplicaExited) -> tuple[S, str]:
    """What an exit means depends on whether anybody had asked for it."""
    if event.by_itself and event.exit_code is not None:
        return (S.SUCCEEDED, "") if event.exit_code == 0 else (S.FAILED, event.reason)
    if replica.state is S.STOPPING:
        if replica.fenced:
            return S.LOST, replica.reason
        return S.STOPPED, event.reason or replica.reason
    if event.never_ran:
        return S.FAILED, event.reason
    return S.LOST, event.reason or "its processes vanished"


def settled(replica: r.Replica, event: m.ReplicaSettled, now_ms: int) -> r.ReplicaMoved:
    """It stands as before, and more is known of how."""
    return r.ReplicaMoved(
        id=replica.id,
        generation=replica.generation,
        state=replica.state,
        at_ms=now_ms,
        reason=replica.reason,
        freeze=event.freeze,
        stands_for=replica.stands_for,
    )


def report(x: r.Replica) -> m.AllocationReport:
    return m.AllocationReport(
        allocation=x.id,
        generation=x.generation,
        state=x.state,
        address=x.address,
        port=x.port,
        exit_code=x.exit_code,
        reason=x.reason,
        started_at_ms=x.started_at_ms,
        ended_at_ms=x.ended_at_ms,
        freeze=x.freeze,
        turn=x.turn,
        stands_for=x.stands_for,
        checkpoints=x.checkpoints,
    )


def moved(old: r.Replica, by: r.ReplicaMoved) -> r.Replica:
    return replace(
        old,
        generation=by.generation,
        state=by.state,
        fenced=by.fenced or old.fenced,
        address=by.address or old.address,
        port=by.port or old.port,
        pid=by.pid or old.pid,
        exit_code=by.exit_code,
        reason=by.reason if by.state in STANDING else by.reason or old.reason,
        started_at_ms=old.started_at_ms or (by.at_ms if by.state is S.RUNNING else 0),
        ended_at_ms=by.at_ms if by.state.is_terminal else 0,
        freeze=by.freeze,
        turn=max(by.turn, old.turn),
        stands_for=by.stands_for,
    )
