"""What a cluster's machine holds of queues and windows, as the rows that the API shows. Pure."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from hyperion.control.cluster_state import ClusterState
from hyperion.control.outlook import Prospect
from hyperion.control.records import JobStatus
from hyperion.daemon.application import Conflict, NotFound
from hyperion.model.ids import JobId, NodeId, QueueName, UserId, WindowId
from hyperion.model.job import Job, JobPhase
from hyperion.model.queue import DEFAULT_QUEUE, Queue
from hyperion.model.window import Window
from hyperion.placement.feasibility import Reason
from hyperion.wire.api import NodeReason, OutlookView, QueueView, QuotaView, WindowView
from hyperion.wire.rest import WindowRequest


def queue_views(state: ClusterState, cluster: str, now_ms: int) -> list[QueueView]:
    """Parents before their children; the default queue is always there."""
    queues = {DEFAULT_QUEUE: Queue(name=DEFAULT_QUEUE)} | state.queues
    return [_queue_view(state, queues[name], cluster, now_ms) for name in in_order(queues)]


def in_order(queues: Mapping[QueueName, Queue]) -> list[QueueName]:
    """Each queue behind its parent, siblings by name."""
    children: dict[str, list[QueueName]] = {}
    for name, queue in queues.items():
        parent = queue.parent if queue.parent in queues else ""
        children.setdefault(parent, []).append(name)
    found: list[QueueName] = []
    left = sorted(children.get("", ()), reverse=True)
    while left:
        name = left.pop()
        found.append(name)
        left += sorted(children.get(name, ()), reverse=True)
    return found


def _queue_view(state: ClusterState, queue: Queue, cluster: str, now_ms: int) -> QueueView:
    standing = state.occupancy.tree.standing(queue.name, now_ms)
    return QueueView(
        cluster=cluster,
        name=queue.name,
        parent=queue.parent,
        weight=queue.weight,
        quota=standing.quota,
        borrow=queue.borrow,
        lend=queue.lend,
        used=standing.held,
        borrowed=standing.borrowed,
        share=standing.share,
        waiting=state.queue.waiting_in(queue.name),
        reclaim=queue.reclaim,
        preempt_within=queue.preempt_within,
        users=queue.users,
        stopped=queue.stopped,
    )


def without_queue(queues: Mapping[QueueName, Queue], name: str) -> tuple[Queue, ...]:
    """The tree without one of its leaves. Raises NotFound, or Conflict where others are in it."""
    if QueueName(name) not in queues:
        raise NotFound(f"no queue {name}; hyperion queues lists them")
    inner = sorted(queue.name for queue in queues.values() if queue.parent == name)
    if inner:
        raise Conflict(
            f"queue {name} has queues in it ({', '.join(inner[:5])}): remove those first"
        )
    return tuple(queue for queue in queues.values() if queue.name != name)


def window_view(window: Window, cluster: str, now_ms: int) -> WindowView:
    return WindowView(
        cluster=cluster,
        id=window.id,
        kind="maintenance" if window.is_maintenance else "reservation",
        state="begun" if window.begins_at_ms <= now_ms else "planned",
        begins_at_ms=window.begins_at_ms,
        ends_at_ms=window.ends_at_ms,
        nodes=window.nodes,
        queues=window.queues,
        users=window.users,
        reason=window.reason,
    )


def window_of(state: ClusterState, asked: WindowRequest, now_ms: int) -> Window:
    """The window asked for, its nodes chosen where only their number was given. Raises Conflict."""
    window = Window(
        id=WindowId(asked.id),
        begins_at_ms=asked.begins_at_ms or now_ms,
        ends_at_ms=asked.ends_at_ms,
        nodes=tuple(NodeId(node) for node in asked.nodes),
        queues=tuple(QueueName(queue) for queue in asked.queues),
        users=tuple(UserId(user) for user in asked.users),
        reason=asked.reason,
    )
    if not asked.count:
        return window
    return replace(window, nodes=_chosen(state, window, asked))


def _chosen(state: ClusterState, window: Window, asked: WindowRequest) -> tuple[NodeId, ...]:
    """As many nodes as asked for: those with the fewest replicas on them now, by name."""
    taken = _taken(state.windows.values(), window)
    free = [
        (len(state.live_on(id)), id)
        for id, entry in state.nodes.items()
        if not (entry.lost or entry.cordoned or id in taken)
        and asked.gpu_type in ("", entry.node.capacity.gpu_type)
    ]
    if len(free) < asked.count:
        kind = f" with {asked.gpu_type}" if asked.gpu_type else ""
        raise Conflict(
            f"{asked.count} nodes{kind} are asked for, {len(free)} are usable and in no other"
            " window at that time; ask for fewer, or for another time"
        )
    return tuple(sorted(id for _, id in sorted(free)[: asked.count]))


def _taken(windows: Iterable[Window], wanted: Window) -> frozenset[NodeId]:
    """The nodes of other windows that overlap it."""
    return frozenset(
        node
        for other in windows
        if other.id != wanted.id
        and other.begins_at_ms < wanted.ends_at_ms
        and wanted.begins_at_ms < other.ends_at_ms
        for node in other.nodes
    )


def outlook_view(state: ClusterState, prospect: Prospect, cluster: str, job: Job) -> OutlookView:
    """A prospect as the API shows it; ``job`` waits there, or was only asked about."""
    known = state.jobs.get(job.id)
    status = known.status if known is not None else JobStatus()
    reasons = [
        NodeReason(reason=Reason(text).name, nodes=nodes, text=prospect.details.get(text, text))
        for text, nodes in prospect.reasons.items()
    ]
    fitting = sum(reason.nodes for reason in reasons if reason.reason == Reason.GANG.name)
    quota = prospect.quota
    return OutlookView(
        cluster=cluster,
        queue=prospect.queue,
        position=prospect.position,
        position_in_queue=prospect.position_in_queue,
        nodes=prospect.nodes,
        nodes_with_room=fitting,
        reasons=tuple(sorted(reasons, key=lambda reason: (-reason.nodes, reason.reason))),
        never=prospect.never,
        quota=None
        if quota is None
        else QuotaView(
            queue=quota.queue,
            resource=quota.resource,
            used=quota.used,
            limit=quota.quota,
            asked=quota.asked,
        ),
        awaits=prospect.awaits,
        not_before_ms=prospect.not_before_ms,
        starts_at_ms=prospect.starts_at_ms,
        confidence=prospect.confidence,
        because=prospect.because,
        replicas=job.replicas,
        replicas_now=prospect.replicas_now,
        pauses=prospect.pauses,
        preempts=prospect.preempts or _stopped_for(state, status),
    )


def _stopped_for(state: ClusterState, status: JobStatus) -> tuple[JobId, ...]:
    """Jobs that are being stopped on the places that are kept for it."""
    nodes = {claim.node for claim in status.claim}
    jobs = {allocation.job for node in nodes for allocation in state.live_on(node)}
    stopping = (JobPhase.STOPPING, JobPhase.QUEUED)
    return tuple(sorted(j for j in jobs if state.jobs[j].status.phase in stopping))
