"""What must hold in a cluster after every step, whatever happened. Tests and seeded worlds ask."""

from typing import TYPE_CHECKING

from hyperion.control import arrays
from hyperion.control import records as r
from hyperion.control.occupancy import queue_of
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import JobPhase
from hyperion.placement import snapshot as columns
from hyperion.placement.fairness import QueueTree
from hyperion.placement.running import Running

if TYPE_CHECKING:
    from hyperion.control.cluster_state import ClusterState

_WITH_REPLICAS = (JobPhase.STARTING, JobPhase.RUNNING, JobPhase.STOPPING)


def check(state: "ClusterState") -> None:
    """Raises AssertionError, naming what is wrong."""
    for a in state.allocations.values():
        assert a.job in state.jobs, f"{a.id} belongs to no job"
        if not a.state.is_terminal:
            assert not state.nodes[a.node].lost, f"{a.id} is alive on the lost node {a.node}"
            phase = state.jobs[a.job].status.phase
            assert phase in _WITH_REPLICAS, f"{a.id} is alive while its job is {phase}"
    for known in state.jobs.values():
        _check_job(state, known)
    held = [a for a in state.allocations.values() if not a.state.is_terminal]
    _check_capacity(state, held)
    _check_columns(state, held)
    _check_running(state, held)
    _check_use(state, held)


def check_settled(state: "ClusterState") -> None:
    """What holds besides once no round is due: nobody stands still for nobody."""
    for winner in state.noted.winners():
        known = state.jobs.get(winner)
        if known is not None and (known.status.claim or state.live_of(winner)):
            continue
        left = [
            job
            for job in state.noted.paused_for(winner)
            if state.jobs[job].status.phase is JobPhase.RUNNING
        ]
        assert not left, f"{left} stand still for {winner}, which is gone"


def _check_job(state: "ClusterState", known: r.ClusterJob) -> None:
    job, status = known.job, known.status
    live = state.live_of(job.id)
    waits = state.wants_place(known)
    assert (job.id in state.queue) == waits, f"{job.id} is {status.phase} but queue disagrees"
    if job.array is not None:
        tasks = arrays.progress(status)
        assert len(live) == tasks.running(), f"{job.id}: {len(live)} live, but {tasks}"
        assert len({a.rank for a in live}) == len(live), f"{job.id}: a task runs twice"
        limit = job.array.limit
        assert not limit or len(live) <= limit, f"{job.id} runs {len(live)} tasks at once"
    elif status.phase in (JobPhase.STARTING, JobPhase.RUNNING):
        width = status.width or job.replicas
        assert job.least_replicas <= width <= job.replicas, f"{job.id} has {width} replicas"
        ranks = sorted(a.rank for a in state.attempt_of(job.id) if a.rank < width)
        assert ranks == list(range(width)), f"{job.id} is no whole gang: {ranks} of {width}"
    assert not status.claim or waits, f"{job.id} claims a place but waits for none"
    assert (job.id in state.claims) == bool(status.claim), f"{job.id}: claims disagree"
    for other in status.awaits:
        assert not state.jobs[other].status.phase.is_terminal, (
            f"{job.id} awaits {other}, which ended"
        )


def _check_capacity(state: "ClusterState", held: list[Allocation]) -> None:
    """No node holds more than it has, counted from the replicas themselves."""
    used: dict[NodeId, list[int]] = {}
    devices: dict[tuple[NodeId, int], int] = {}
    custom: dict[tuple[NodeId, str], int] = {}
    for a in held:
        sums = used.setdefault(a.node, [0, 0, 0])
        known = state.jobs[a.job]
        # What stands still, or is being stopped after it has, lends its CPUs to another. So does a
        # standby; when it is wanted its node acts first, and tells of it replica by replica.
        idle = known.status.paused_for or known.job.standby is not None
        cpus = 0 if idle else a.request.cpus_milli
        for n, amount in enumerate((cpus, a.request.memory_mib, a.request.disk_mib)):
            sums[n] += amount
        for device in a.devices:
            share = min(a.request.gpus_milli, 1000)
            devices[a.node, device] = devices.get((a.node, device), 0) + share
        for name, count in a.request.custom:
            custom[a.node, name] = custom.get((a.node, name), 0) + count
    for node, (cpus, memory, disk) in used.items():
        c = state.nodes[node].node.capacity
        fits = cpus <= c.cpus_milli and memory <= c.memory_mib and disk <= c.disk_mib
        assert fits, f"node {node} holds more than it has"
    for (node, device), milli in devices.items():
        gpus = state.nodes[node].node.capacity.gpus
        assert milli <= 1000, f"GPU {device} of {node} is given out {milli / 1000:g} times"
        assert device < gpus, f"node {node} has no GPU {device}"
    for (node, name), count in custom.items():
        has = dict(state.nodes[node].node.capacity.custom).get(name, 0)
        assert count <= has, f"node {node} holds {count} of {has} {name}"


def _check_columns(state: "ClusterState", held: list[Allocation]) -> None:
    """The planner's columns are what a fold from scratch gives."""
    live = [e for e in state.nodes.values() if not e.lost]
    rebuilt = columns.empty()
    for entry in live:
        rebuilt.add_node(entry.node)
    claims = [a for claim in state.claims.values() for a in claim]
    for a in [*held, *claims]:
        rebuilt.hold(a, state.jobs[a.job].job)
    for entry in live:
        silent = entry.node.id in state.silent
        rebuilt.set_schedulable(entry.node.id, cordoned=entry.cordoned, silent=silent)
    assert rebuilt == state.snapshot, next(rebuilt.differences(state.snapshot), "columns differ")


def _check_running(state: "ClusterState", held: list[Allocation]) -> None:
    seats: dict[JobId, set[AllocationId]] = {}
    for a in held:
        seats.setdefault(a.job, set()).add(a.id)
    running: Running = state.running
    assert running.occupants.keys() == seats.keys(), "the running jobs differ from the state"
    for job, ids in seats.items():
        there = {a.id for a in running.seats(job)}
        assert there == ids, f"{job}: seats {there} instead of {ids}"
        stopping = state.jobs[job].status.phase is JobPhase.STOPPING
        assert running.occupants[job].stopping == stopping, f"{job}: stopping or not?"


def _check_use(state: "ClusterState", held: list[Allocation]) -> None:
    """Queues are charged with what their jobs hold and claim, and nobody is over a hard limit."""
    fresh = QueueTree(state.queues.values())
    claims = [a for claim in state.claims.values() for a in claim]
    for a in [*held, *claims]:
        job = state.jobs[a.job].job
        fresh.charge(
            queue_of(job),
            state.occupancy.charged(a.id),
            1,
            user=job.user,
            priority=job.priority,
            nice=job.nice,
        )
    for name in {queue_of(known.job) for known in state.jobs.values()}:
        if name in fresh:
            ours = fresh.standing(name, 0).held
            theirs = state.occupancy.tree.standing(name, 0).held
            assert ours == theirs, f"queue {name} is charged {theirs} instead of {ours}"
    tree = state.occupancy.tree
    tree.check()
    for queue in state.queues.values() if not claims else ():
        for resource in queue.quota:
            refusal = tree.refusal(queue.name, ((resource, 1),))
            over = refusal is not None and refusal.resource and refusal.used > refusal.quota
            assert not over, f"queue {queue.name} is over its quota: {refusal}"
