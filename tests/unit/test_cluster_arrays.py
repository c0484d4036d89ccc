"""Stories about arrays, dependencies, roles, elastic jobs: shapes a job may have in a cluster."""

from cluster_stories import (
    S,
    alone,
    beat,
    federated,
    job,
    machine,
    node,
    phases,
    place,
    say,
    sent,
    submit,
    tell,
)
from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.model.job import (
    Array,
    Checkpoint,
    Condition,
    Dependency,
    Elastic,
    JobPhase,
    Restart,
    Role,
)
from hyperion.model.resources import ResourceRequest


def test_an_array_runs_its_tasks_up_to_the_limit():
    c = alone(node(cpus=64))
    first = submit(c, job("sweep", gpus=0, array=Array(size=5, limit=2)))
    assert [run.rank for run in first] == [0, 1]
    more = sent(tell(c, first[0], S.SUCCEEDED), m.Run)
    assert [run.rank for run in more] == [2], "one ends, the next one starts"
    known = c.machine.state.jobs["sweep"]
    assert known.status.tasks.succeeded == 1
    assert len(c.machine.state.allocations) == 2, "an ended task is only a number"


def test_an_array_ends_with_its_last_task():
    c = alone(node(cpus=64))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=3)))
    say(c, runs[:2], S.SUCCEEDED)
    assert phases(c) == {"sweep": "running"}
    tell(c, runs[2], S.FAILED, exit_code=3)
    status = c.machine.state.jobs["sweep"].status
    assert (status.phase.value, status.exit_code) == ("failed", 3)
    assert status.reason == "1 of 3 tasks failed; task 2: exit code 3"


def test_a_failed_task_is_tried_again_by_itself():
    c = alone(node(cpus=64))
    restart = Restart(max=1, backoff_s=2.0)
    runs = submit(c, job("sweep", gpus=0, array=Array(size=2), restart=restart))
    assert sent(tell(c, runs[0], S.FAILED, exit_code=1), m.Run) == []
    tell(c, runs[1], S.RUNNING)
    [again] = sent(beat(c, 3), m.Run)
    assert (again.rank, again.attempt) == (0, 2)
    assert again.allocation != runs[0].allocation
    say(c, [again, runs[1]], S.SUCCEEDED)
    assert phases(c) == {"sweep": "succeeded"}


def test_a_hundred_thousand_tasks_are_one_small_object():
    c = alone(*(node(f"n{i}", cpus=64) for i in range(4)))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=100_000)))
    assert len(runs) == 256
    assert len(c.disk["/hyperion/v1/job/sweep"]) < 1000
    say(c, runs[:50], S.SUCCEEDED)
    assert c.machine.state.jobs["sweep"].status.tasks.next == 306


def test_an_array_that_is_to_come_back_drops_no_task_and_has_its_whole_grace():
    for comes_back, grace_s in ((True, 40.0), (False, 40.0)):
        c = federated(node(cpus=64))
        work = job("sweep", gpus=0, array=Array(size=5, limit=2))
        work = replace(work, checkpoint=Checkpoint(grace_s=grace_s))
        runs = place(c, work)
        live = [runs[1], *sent(tell(c, runs[0], S.SUCCEEDED), m.Run)]
        order = m.StopJob("sweep", 2, JobPhase.CANCELLED, "a budget", comes_back=comes_back)
        stops = sent(c.say(order), m.Stop)
        assert {stop.grace_ms for stop in stops} == {40_000}
        said = say(c, live, S.STOPPED)
        (last,) = [r for r in sent(said, m.JobReport) if r.phase is JobPhase.CANCELLED][-1:]
        assert last.lost == comes_back
        assert (last.tasks.succeeded, last.tasks.dropped) == (1, 0 if comes_back else 2)
        assert sorted(retry.rank for retry in last.tasks.again) == ([1, 2] if comes_back else [])
        c.say(m.ForgetJob("sweep", 2))
        order = m.PlaceJob(work, 3, c.now_ms, tasks=last.tasks)
        ranks = [run.rank for run in sent(c.say(order), m.Run)]
        assert not comes_back or ranks == [1, 2]


def test_an_array_that_comes_from_another_cluster_goes_on_where_it_was():
    c = alone(node(cpus=64))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=10, limit=3)))
    tell(c, runs[1], S.SUCCEEDED)
    known = c.machine.state.jobs["sweep"]
    from hyperion.control import gang

    report = gang.job_report(known, c.machine.state.attempt_of("sweep"))
    assert (report.tasks_running, report.tasks.succeeded) == (3, 1)
    assert [retry.rank for retry in report.tasks.again] == [0, 2, 3]
    other = alone(node(cpus=64))
    other.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=300_000))
    order = m.PlaceJob(job=known.job, generation=7, submitted_at_ms=1, tasks=report.tasks)
    assert [run.rank for run in sent(other.say(order), m.Run)] == [0, 2, 3]


def test_a_drained_node_puts_only_its_own_tasks_back():
    c = alone(node("n1", cpus=2), node("n2", cpus=2))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=4)))
    here = [run for run in runs if c.machine.state.allocations[run.allocation].node == "n1"]
    commands = c.say(m.CordonRequested(node="n1", cordon=True, drain=True, token=1))
    assert {stop.allocation for stop in sent(commands, m.Stop)} == {r.allocation for r in here}
    say(c, here, S.STOPPED)
    assert c.machine.state.jobs["sweep"].status.tasks.running() == 2


def test_cancelling_an_array_ends_all_of_it():
    c = alone(node(cpus=64))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=9, limit=2)))
    c.say(m.JobCancelRequested(job="sweep", by="ann", token=2))
    say(c, runs, S.STOPPED)
    assert phases(c) == {"sweep": "cancelled"}


def test_an_array_survives_a_restart():
    c = alone(node(cpus=2))
    runs = submit(c, job("sweep", gpus=0, array=Array(size=4)))
    tell(c, runs[0], S.SUCCEEDED)
    before = c.machine.state.jobs["sweep"]
    c.restart(machine)
    assert c.machine.state.jobs["sweep"] == before
    c.machine.state.check()


def test_a_job_waits_for_another_to_end_well():
    c = alone(node(cpus=64))
    [first] = submit(c, job("prepare", gpus=0))
    assert submit(c, job("train", gpus=0, after=(Dependency(job="prepare"),))) == []
    assert c.machine.state.jobs["train"].status.reason == "waits for the end of prepare"
    [run] = sent(tell(c, first, S.SUCCEEDED), m.Run)
    assert run.job.id == "train"


def test_what_can_never_follow_is_cancelled_with_all_that_follows_it():
    c = alone(node(cpus=64))
    [first] = submit(c, job("a", gpus=0))
    submit(c, job("b", gpus=0, after=(Dependency(job="a"),)))
    submit(c, job("c", gpus=0, after=(Dependency(job="b"),)))
    cleanup = Dependency(job="a", condition=Condition.NOT_OK)
    submit(c, job("cleanup", gpus=0, after=(cleanup,)))
    commands = tell(c, first, S.FAILED, exit_code=1)
    assert [run.job.id for run in sent(commands, m.Run)] == ["cleanup"]
    assert phases(c) | {"cleanup": ""} == {
        "a": "failed",
        "b": "cancelled",
        "c": "cancelled",
        "cleanup": "",
    }


def test_a_chain_of_thousands_falls_without_recursion():
    c = alone(node(cpus=64))
    c.machine.state.check = lambda: None  # 3,000 times 3,000 looks
    [first] = submit(c, job("j0", gpus=0))
    for n in range(1, 3000):
        submit(c, job(f"j{n}", gpus=0, after=(Dependency(job=f"j{n - 1}"),)))
    tell(c, first, S.FAILED, exit_code=1)
    assert set(phases(c).values()) == {"failed", "cancelled"}


def test_a_dependency_on_nothing_is_refused_at_once():
    c = alone(node(cpus=64))
    [answer] = c.say(m.JobSubmitted(job=job("b", after=(Dependency(job="a"),)), token=1))
    assert "depends on job a, which is not known" in answer.error


def test_a_job_does_not_begin_before_its_time():
    c = alone(node(cpus=64))
    assert submit(c, job("late", gpus=0, begin_s=3.0)) == []
    assert sent(beat(c, 2), m.Run) == []
    assert len(sent(beat(c, 2), m.Run)) == 1


def test_roles_get_what_each_of_them_needs():
    gpu, cpu = ResourceRequest(gpus_milli=8000), ResourceRequest(cpus_milli=8000)
    c = alone(node("big", gpus=8, cpus=4), node("small", gpus=0, cpus=16))
    prepares = submit(
        c,
        job(
            "mix",
            replicas=3,
            roles=(
                Role(name="trainer", resources=gpu),
                Role(name="server", replicas=2, resources=cpu),
            ),
        ),
    )
    on = [c.machine.state.allocations[p.allocation].node for p in prepares]
    assert on == ["big", "small", "small"]
    assert [p.request for p in prepares] == [gpu, cpu, cpu]


def test_an_elastic_job_starts_with_what_there_is_and_grows():
    c = alone(node("n1", cpus=2), grow_after_ms=1000)
    elastic = Elastic(min=1, restart=False)
    first = submit(c, job("grow", gpus=0, replicas=4, elastic=elastic))
    assert len(first) == 2
    runs = sent(say(c, first, S.READY, address="a", port=1), m.Run)
    assert [len(run.peers) for run in runs] == [2, 2]
    say(c, runs, S.RUNNING)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n2", cpus=2))))
    more = sent(beat(c, 3), m.Prepare)
    assert [p.rank for p in more] == [2, 3]
    runs = sent(say(c, more, S.READY, address="b", port=2), m.Run)
    assert {run.rank for run in runs} == {2, 3}
    assert phases(c) == {"grow": "running"}


def test_an_elastic_job_that_restarts_to_grow_is_whole_afterwards():
    c = alone(node("n1", cpus=2), grow_after_ms=1000)
    saves = Checkpoint(dir="/ckpt")
    first = submit(c, job("grow", gpus=0, replicas=4, elastic=Elastic(min=1), checkpoint=saves))
    runs = sent(say(c, first, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n2", cpus=2))))
    stops = sent(beat(c, 3), m.Stop)
    assert len(stops) == 2
    assert len(sent(say(c, stops, S.STOPPED), m.Prepare)) == 4


def test_an_elastic_job_gives_up_its_last_ranks_and_takes_them_again():
    c = alone(node("n1", cpus=4), grow_after_ms=1000)
    elastic = Elastic(min=1, restart=False)
    first = submit(c, job("grow", gpus=0, replicas=4, elastic=elastic))
    runs = sent(say(c, first, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING)
    decisions = c.machine.preempting.shrink("grow", 2, c.now_ms)
    from hyperion.control.cluster import _RECORDS
    from hyperion.control.machine import sort_out

    outcome = sort_out(decisions, _RECORDS, c.machine.apply)
    c._take(outcome)
    stops = sent(outcome.commands, m.Stop)
    assert len(stops) == 2
    say(c, stops, S.STOPPED)
    assert phases(c) == {"grow": "running"}
    again = sent(beat(c, 3), m.Prepare)
    assert [p.rank for p in again] == [2, 3]
    assert not {p.allocation for p in again} & {p.allocation for p in first}
