"""Stories about ends that come at a bad time: arrays, elastic jobs, fencing, dependents, ids."""

from cluster_stories import (
    S,
    alone,
    beat,
    federated,
    job,
    node,
    phases,
    place,
    running,
    say,
    sent,
    status,
    submit,
    tell,
)
from stories import federation, load

from hyperion.control import arrays
from hyperion.control import messages as m
from hyperion.control.occupancy import Occupancy
from hyperion.model.allocation import Allocation
from hyperion.model.cluster import Cluster
from hyperion.model.job import (
    Array,
    Checkpoint,
    Condition,
    Dependency,
    Elastic,
    Job,
    JobPhase,
    Priority,
    Restart,
    TaskProgress,
    TaskRetry,
)
from hyperion.model.resources import ResourceRequest

LC = Priority.LATENCY_CRITICAL
RESIZES = Elastic(min=1, restart=False)


def cancel(c, id):
    return c.say(m.JobCancelRequested(job=id, by="ann", token=2))


# -- arrays ---------------------------------------------------------------------------------------


def test_a_task_that_loses_every_node_it_runs_on_has_failed():
    c = alone(node("n0", gpus=1), node_lease_ms=3000)
    submit(c, job("sweep", gpus=1, array=Array(size=1)))
    for n in range(arrays.LOSSES_MAX + 1):
        c.say(m.NodeDetached(node=f"n{n}"))
        c.say(m.NodeAttached(hello=m.NodeHello(node=node(f"n{n + 1}", gpus=1))))
        beat(c, 8)
    tasks = status(c, "sweep").tasks
    assert (phases(c)["sweep"], tasks.failed) == ("failed", 1)
    assert "was lost" in tasks.failures[0].reason


def test_tasks_that_wait_through_no_fault_of_theirs_leave_room_for_retries():
    waiting = tuple(TaskRetry(rank) for rank in range(arrays.RETRIES_MAX + 500))
    request = ResourceRequest()
    failed = {"state": S.FAILED, "exit_code": 1}
    a = Allocation(id="x", job="sweep", rank=1600, node="n1", request=request, **failed)
    tasks = TaskProgress(next=2000, again=waiting)
    after = arrays.after_end(tasks, a, Restart(max=3), 0)
    assert after.failed == 0
    assert after.again[-1].rank == 1600


def test_an_array_whose_live_tasks_fit_nowhere_else_is_not_given_back():
    c = federated(node("n1", gpus=2, labels={"zone": "a"}), node("n2", gpus=2))
    request = ResourceRequest(gpus_milli=2000, labels={"zone": "a"})
    there = Job(id="sweep", command=("true",), alternatives=(request,), array=Array(size=3))
    [run] = place(c, there)
    report = m.AllocationReport(allocation=run.allocation, generation=1, state=S.RUNNING)
    moved = node("n1", gpus=2, labels={"zone": "b"})
    c.say(m.NodeAttached(hello=m.NodeHello(node=moved, allocations=(report,))))
    beat(c, 3)
    assert not status(c, "sweep").refused
    assert phases(c) == {"sweep": "running"}


def test_the_end_of_a_task_looks_at_no_other_task(monkeypatch):
    c = alone(node(gpus=0, cpus=64))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=50)))
    cancel(c, "sweep")
    looks = []
    see = Occupancy._see_leaving
    monkeypatch.setattr(Occupancy, "_see_leaving", lambda *a: looks.append(a) or see(*a))
    say(c, runs, S.STOPPED)
    assert phases(c) == {"sweep": "cancelled"}
    assert len(looks) <= len(runs)


def test_the_federation_counts_what_a_cluster_told_last_of_an_array():
    f = federation()
    hello = m.ClusterHello(cluster=Cluster(id="c1", region="aws/us-east-1"), load=load(), jobs=())
    f.say(m.ClusterAttached(hello=hello))
    submitted = m.JobSubmitted(job=job("sweep", array=Array(size=10)), token=1)
    [order] = sent(f.say(submitted), m.PlaceJob)
    told = m.JobReport(
        job="sweep",
        generation=order.generation,
        version=20,
        phase=JobPhase.CANCELLED,
        lost=True,
        reason="cut off",
        tasks=TaskProgress(next=10, succeeded=8, again=(TaskRetry(9), TaskRetry(8))),
    )
    f.say(m.ClusterReported(cluster="c1", report=told))
    known = f.machine.state.jobs["sweep"].status
    assert (known.tasks.succeeded, known.tasks_running) == (8, 0)


# -- fencing --------------------------------------------------------------------------------------


def fenced_between_tries():
    """An array whose only task waits for its next try when the lease ends."""
    c = federated(node(cpus=1, gpus=0))
    restart = Restart(max=3, backoff_s=500.0)
    [run] = place(c, job("sweep", gpus=0, array=Array(size=1), restart=restart))
    tell(c, run, S.FAILED, exit_code=1)
    beat(c, 70)
    return c


def test_a_fenced_array_of_which_nothing_runs_has_ended():
    assert phases(fenced_between_tries()) == {"sweep": "cancelled"}


def test_an_array_that_was_fenced_between_tries_can_be_placed_again():
    c = fenced_between_tries()
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=60_000))
    runs = place(c, job("sweep", gpus=0, array=Array(size=1)), generation=2)
    assert [run.job.id for run in runs] == ["sweep"]


def test_a_fenced_array_gives_up_the_place_that_was_cleared_for_it():
    c = federated(node("n1", gpus=2))
    [batch] = place(c, job("batch", gpus=1, checkpoint=Checkpoint(grace_s=60.0)))
    tell(c, batch, S.RUNNING, started_at_ms=c.now_ms)
    [task] = place(c, job("sweep", gpus=1, array=Array(size=2), priority=LC))
    tell(c, task, S.RUNNING, started_at_ms=c.now_ms)
    beat(c, 3)
    assert status(c, "sweep").claim
    beat(c, 53)
    assert status(c, "sweep").fenced
    assert c.machine.state.claims == {}
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=60_000))
    assert sent(tell(c, batch, S.STOPPED), m.Run) == []
    assert phases(c)["sweep"] == "stopping"


# -- elastic jobs ---------------------------------------------------------------------------------


def elastic(c, **more):
    """A job of four GPUs that can do with one, and that runs on as many as it gets."""
    more.setdefault("elastic", RESIZES)
    first = submit(c, job("grows", gpus=1, replicas=4, **more))
    runs = sent(say(c, first, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    return runs


def test_a_rank_that_was_given_up_is_not_taken_again_while_it_ends():
    c = alone(node("n1", gpus=4, cpus=4), grow_after_ms=1000)
    elastic(c)
    stops = sent(c.say(m.JobSubmitted(job=job("urgent", gpus=2, priority=LC), token=1)), m.Stop)
    assert len(stops) == 2
    cancel(c, "urgent")
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n2", gpus=4, cpus=4))))
    assert sent(beat(c, 3), m.Prepare) == []
    say(c, stops, S.STOPPED)
    assert phases(c)["grows"] == "running"
    assert {order.rank for order in sent(beat(c, 3), m.Prepare)} == {2, 3}


def test_a_job_of_which_a_rank_has_succeeded_does_not_grow():
    c = alone(node("n1", gpus=2, cpus=2), grow_after_ms=1000)
    runs = elastic(c)
    tell(c, runs[0], S.SUCCEEDED)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n2", gpus=2))))
    assert sent(beat(c, 5), (m.Prepare, m.Stop)) == []


def test_a_job_does_not_restart_to_grow_before_the_run_it_was_promised():
    c = alone(node("n1", gpus=2, cpus=2), grow_after_ms=1000)
    saves = Checkpoint(dir="/ckpt")
    elastic(c, elastic=Elastic(min=1), checkpoint=saves, min_runtime_s=60.0)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n2", gpus=2))))
    assert sent(beat(c, 50), m.Stop) == []
    assert len(sent(beat(c, 20), m.Stop)) >= 2


def test_a_job_that_has_shrunk_is_left_alone_for_a_while():
    c = alone(node("n1", gpus=4))
    elastic(c)
    beat(c, 70)
    stops = sent(c.say(m.JobSubmitted(job=job("urgent", gpus=2, priority=LC), token=1)), m.Stop)
    [urgent] = sent(say(c, stops, S.STOPPED), m.Run)
    tell(c, urgent, S.SUCCEEDED)
    assert sent(beat(c, 10), m.Prepare) == [], "it would be asked to shrink again at once"
    assert len(sent(beat(c, 60), m.Prepare)) >= 2


# -- dependents -----------------------------------------------------------------------------------


def test_a_job_that_is_given_back_releases_those_that_wait_for_its_end():
    c = federated(node("n1", gpus=1))
    c.say(m.NodeDetached(node="n1"))
    place(c, job("wide", gpus=16))
    submit(c, job("next", gpus=1, after=(Dependency(job="wide", condition=Condition.ANY),)))
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n1", gpus=1))))
    assert status(c, "wide").refused
    assert [run.job.id for run in sent(beat(c), m.Run)] == ["next"]


def test_a_cancelled_job_keeps_its_reason_when_what_it_waited_for_ends():
    c = alone(node(gpus=8))
    [first] = running(c, job("first", gpus=1))
    submit(c, job("next", gpus=1, after=(Dependency(job="first"),)))
    cancel(c, "next")
    tell(c, first, S.SUCCEEDED)
    assert status(c, "next").reason == "cancelled by ann"


def test_a_job_ends_only_once():
    c = alone(node(gpus=8))
    [first] = running(c, job("first", gpus=1))
    submit(c, job("next", gpus=1, deadline_s=2.0, after=(Dependency(job="first"),)))
    beat(c, 5)
    before = status(c, "next")
    assert before.phase is JobPhase.FAILED
    tell(c, first, S.FAILED, exit_code=1)
    assert status(c, "next") == before


def test_a_job_that_waits_for_another_is_not_counted_among_the_running():
    c = alone(node(cpus=64))
    submit(c, job("first", gpus=0))
    submit(c, job("next", gpus=0, after=(Dependency(job="first"),)))
    load = c.machine.uplink.load()
    assert (load.waiting_jobs, load.running_jobs) == (1, 1)


# -- ids ------------------------------------------------------------------------------------------


def test_the_deadline_of_a_forgotten_job_does_not_end_its_namesake():
    c = alone(node(gpus=1), retention_ms=2000, mark_ms=2000)
    [first] = running(c, job("same", gpus=1, deadline_s=30))
    tell(c, first, S.SUCCEEDED)
    beat(c, 10)
    assert phases(c) == {}
    running(c, job("same", gpus=1))
    beat(c, 30)
    assert phases(c) == {"same": "running"}


def test_the_federation_neither_stops_nor_forgets_what_is_not_its_own():
    c = federated(node("n1", gpus=8))
    [run] = running(c, job("local", gpus=1))
    order = m.StopJob(job="local", generation=2, phase=JobPhase.CANCELLED, reason="x")
    assert sent(c.say(order), m.Stop) == []
    tell(c, run, S.SUCCEEDED)
    c.say(m.ForgetJob(job="local", generation=1))
    assert phases(c) == {"local": "succeeded"}
