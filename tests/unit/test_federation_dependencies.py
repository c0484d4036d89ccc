"""Stories about jobs of a federation that wait for others, for their time, or go on elsewhere."""

from stories import federation, job, load, sent

from hyperion.control import messages as m
from hyperion.model.cluster import Cluster
from hyperion.model.job import Array, Condition, Dependency, Residency, TaskProgress, TaskRetry
from hyperion.model.job import JobPhase as P


def joined(*names):
    f = federation()
    for name in names or ("c1",):
        cluster = Cluster(id=name, region="aws/us-east-1")
        f.say(m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load())))
    return f


def reports(f, cluster, job_id, phase, generation=1, **more):
    report = m.JobReport(job=job_id, generation=generation, version=9, phase=phase, **more)
    return f.say(m.ClusterReported(cluster=cluster, report=report))


def phase_of(f, job_id):
    return f.machine.state.jobs[job_id].status.phase


def test_a_job_is_placed_once_what_it_depends_on_has_ended_well():
    f = joined()
    f.say(m.JobSubmitted(job=job("prepare")))
    after = (Dependency(job="prepare"),)
    assert sent(f.say(m.JobSubmitted(job=job("train", after=after)))) == []
    assert f.machine.state.jobs["train"].status.reason == "waits for the end of prepare"
    [order] = sent(reports(f, "c1", "prepare", P.SUCCEEDED), m.PlaceJob)
    assert order.job.id == "train"


def test_what_cannot_follow_any_more_is_cancelled_down_the_chain():
    f = joined()
    f.say(m.JobSubmitted(job=job("a")))
    f.say(m.JobSubmitted(job=job("b", after=(Dependency(job="a"),))))
    f.say(m.JobSubmitted(job=job("c", after=(Dependency(job="b"),))))
    not_ok = Dependency(job="a", condition=Condition.NOT_OK)
    f.say(m.JobSubmitted(job=job("cleanup", after=(not_ok,))))
    [order] = sent(reports(f, "c1", "a", P.FAILED, exit_code=1), m.PlaceJob)
    assert order.job.id == "cleanup"
    assert (phase_of(f, "b"), phase_of(f, "c")) == (P.CANCELLED, P.CANCELLED)


def test_a_dependency_on_nothing_or_on_the_wrong_end_is_refused():
    f = joined()
    [answer] = f.say(m.JobSubmitted(job=job("b", after=(Dependency(job="a"),)), token=1))
    assert "not known here" in answer.error
    f.say(m.JobSubmitted(job=job("a")))
    reports(f, "c1", "a", P.FAILED)
    [answer] = f.say(m.JobSubmitted(job=job("b", after=(Dependency(job="a"),)), token=1))
    assert "which has failed" in answer.error


def test_a_waiting_job_can_be_cancelled_and_a_restart_still_waits():
    from stories import MARKET

    from hyperion.control.federation import Federation

    f = joined()
    f.say(m.JobSubmitted(job=job("a")))
    f.say(m.JobSubmitted(job=job("b", after=(Dependency(job="a"),))))
    f.restart(lambda: Federation(MARKET, "balanced"))
    f.machine.state.check()
    f.say(m.JobCancelRequested(job="b", token=1))
    assert phase_of(f, "b") is P.CANCELLED


def test_a_job_that_begins_later_is_placed_later():
    f = joined()
    assert sent(f.say(m.JobSubmitted(job=job("late", begin_s=2.0))), m.PlaceJob) == []
    assert sent(f.wait(1000), m.PlaceJob) == []
    assert len(sent(f.wait(2000), m.PlaceJob)) == 1


def test_a_job_that_begins_later_says_so_until_its_time_has_come():
    f = joined()
    f.say(m.JobSubmitted(job=job("first")))
    f.say(m.JobSubmitted(job=job("late", begin_s=60.0, after=(Dependency(job="first"),))))
    f.say(m.JobSubmitted(job=job("never", begin_s=60.0, regions=Residency(allow=("mars",)))))
    reason = {name: lambda name=name: f.machine.state.jobs[name].status.reason
              for name in ("late", "never")}  # fmt: skip
    later = "is not to begin before 60 s after its submission"
    assert (reason["late"](), reason["never"]()) == ("waits for the end of first", later)
    reports(f, "c1", "first", P.SUCCEEDED, exit_code=0)
    assert reason["late"]() == later
    assert len(sent(f.wait(62_000, step_ms=1000), m.PlaceJob)) >= 1
    assert reason["late"]() == ""
    assert "not in regions.allow" in reason["never"]()


def test_an_array_goes_on_elsewhere_with_what_is_left_of_it():
    f = joined("c1", "c2")
    [order] = sent(f.say(m.JobSubmitted(job=job("sweep", array=Array(size=9)))), m.PlaceJob)
    assert order.tasks is None
    tasks = TaskProgress(next=5, succeeded=4, again=(TaskRetry(2),))
    where = f.machine.state.jobs["sweep"].status.cluster
    reports(f, where, "sweep", P.RUNNING, tasks=tasks, tasks_running=1)
    again = reports(f, where, "sweep", P.CANCELLED, tasks=tasks, refused=True)
    [order] = sent(again, m.PlaceJob)
    assert (order.tasks, order.generation) == (tasks, 2)
