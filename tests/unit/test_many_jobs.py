"""With very many jobs: no message too large, no burst that ends a link, nothing that only grows."""

import msgspec
from stories import federation, job

from hyperion.adapters.link.streams import CLUSTERS, MAX_MESSAGE_BYTES
from hyperion.control import gang, uplink
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.cluster_state import ClusterState
from hyperion.control.machine import key
from hyperion.control.queue import WaitingQueue
from hyperion.control.uplink import ClusterTimes, Uplink
from hyperion.model.allocation import Allocation
from hyperion.model.cluster import Cluster
from hyperion.model.ids import AllocationId, ClusterId, JobId, NodeId
from hyperion.model.job import JobPhase


def tie(jobs, replicas=0):
    """An uplink above so many federated jobs, each with so many replicas."""
    state = ClusterState()
    for n in range(jobs):
        known = r.ClusterJob(
            job=job(f"train-{n:06d}"),
            federated=True,
            submitted_at_ms=0,
            order=n,
            status=r.JobStatus(generation=1, version=1, phase=JobPhase.RUNNING),
        )
        state.jobs[known.job.id] = known
        for rank in range(replicas):
            a = Allocation(
                id=AllocationId(f"{known.job.id}.1-1.{rank}"),
                job=known.job.id,
                rank=rank,
                node=NodeId(f"node-{rank}"),
                request=known.job.alternatives[0],
                devices=(0,),
                placed_at_ms=0,
            )
            state.allocations[a.id] = a
            state._by_job.setdefault(known.job.id, set()).add(a.id)
    above = Uplink(Cluster(id=ClusterId("c1"), region="edge/home"), ClusterTimes(), state)
    above.restored()
    return above


def test_the_hello_of_many_gangs_fits_into_one_message():
    gangs = 2 * MAX_MESSAGE_BYTES // (80 * gang.REPLICAS_REPORTED)
    [hello] = [c.message for c in tie(gangs, gang.REPLICAS_REPORTED).greet(1000)]
    assert 0 < len(hello.jobs) < gangs
    [envelope] = CLUSTERS.up.packed([hello])
    assert len(envelope) < MAX_MESSAGE_BYTES


def test_reports_are_repeated_in_portions_and_none_is_forgotten():
    above = tie(3 * uplink.REPORTS_PER_TICK)
    list(above.greet(0))
    told = []
    for tick in range(4):
        reports = [
            c.message.job
            for c in above.tick(30_000 + 200 * tick)
            if isinstance(c.message, m.JobReport)
        ]
        assert len(reports) <= uplink.REPORTS_PER_TICK
        told += reports
    assert len(told) == len(set(told)) == 3 * uplink.REPORTS_PER_TICK


def test_jobs_cancelled_behind_one_that_never_fits_leave_nothing():
    queue = WaitingQueue()
    queue.add(JobId("first"), priority=9, order=0, shape="shape")
    queue.add(JobId("second"), priority=0, order=0, shape="shape")
    for n in range(10_000):
        queue.add(JobId(f"j{n}"), priority=0, order=n + 1, shape="shape")
        queue.remove(JobId(f"j{n}"))
    assert (
        max(len(b.heap) for u in queue._urgencies.values() for b in u.lanes["shape"].bunches) < 100
    )
    assert [job for job, _ in queue.candidates(0)] == ["first", "second"]


def test_after_a_restart_the_newest_jobs_still_stand_last():
    before = federation()
    for n, name in enumerate(("c", "b", "a")):
        before.say(m.JobSubmitted(job=job(name), token=n))
    before.say(m.JobCancelRequested(job=JobId("b"), by="", token=9))
    kept = [
        (key("job", id), msgspec.json.encode(known))
        for id, known in sorted(before.machine.state.jobs.items())
    ]
    for stored in (kept, kept[::-1]):
        after = federation()
        after.machine.restore(stored, after.now_ms)
        assert list(after.machine.state.jobs) == ["c", "b", "a"]
