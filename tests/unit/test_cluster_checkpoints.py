"""Stories about checkpoints: who hears of them, and from where the next start goes on."""

from cluster_stories import (
    S,
    alone,
    beat,
    federated,
    job,
    node,
    place,
    running,
    say,
    sent,
    status,
    submit,
    tell,
)
from stories import agent
from test_agent_machine import leased, run
from test_federation_machine import P, reports, submitted
from test_federation_machine import status as federated_status

from hyperion.control import messages as m
from hyperion.control.agent import Agent
from hyperion.model.job import Array, Checkpoint, Priority, SavedCheckpoint


def saved(step, at_ms=None, **more):
    at_ms = 1000 * step if at_ms is None else at_ms
    return SavedCheckpoint(step=step, path=f"/ck/step-{step}", at_ms=at_ms, size_bytes=10, **more)


def steps(known):
    return [checkpoint.step for checkpoint in known]


def stopped(c, *orders):
    """Their node is drained: they stop, and the next orders to run."""
    for order in orders:
        c.say(
            m.CordonRequested(
                node=c.machine.state.allocations[order.allocation].node,
                cordon=True,
                drain=True,
                token=1,
            )
        )
    return sent(say(c, orders, S.STOPPED), (m.Run, m.Prepare))


def test_the_next_attempt_goes_on_from_the_newest_checkpoint():
    c = alone(node("n1"), node("n2"))
    [first] = running(c, job())
    assert first.resume_from == ""
    for step in (10, 20, 30, 40):
        tell(c, first, S.RUNNING, checkpoints=(saved(step),))
    assert steps(status(c, "train").checkpoints) == [20, 30, 40]
    [again] = stopped(c, first)
    assert again.resume_from == "/ck/step-40"


def test_what_is_written_on_the_way_out_counts():
    c = alone(node("n1"), node("n2"))
    [first] = running(c, job())
    c.say(m.CordonRequested(node="n1", cordon=True, drain=True, token=1))
    [again] = sent(tell(c, first, S.STOPPED, checkpoints=(saved(7),)), m.Run)
    assert again.resume_from == "/ck/step-7"


def test_a_gang_goes_on_from_the_newest_step_that_all_have_written():
    c = alone(node("n1"), node("n2"), node("n3"), node("n4"))
    orders = submit(c, job(gpus=8, replicas=2))
    runs = sent(say(c, orders, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    tell(c, runs[0], S.RUNNING, checkpoints=(saved(4), saved(5)))
    assert status(c, "train").checkpoints == ()
    tell(c, runs[1], S.RUNNING, checkpoints=(saved(5), saved(6)))
    [whole] = status(c, "train").checkpoints
    assert (whole.step, whole.size_bytes) == (5, 20)


def test_one_rank_may_write_for_all():
    c = alone(node("n1"), node("n2"))
    orders = submit(c, job(gpus=8, replicas=2))
    runs = sent(say(c, orders, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    tell(c, runs[0], S.RUNNING, checkpoints=(saved(4, whole=True),))
    assert steps(status(c, "train").checkpoints) == [4]


def test_an_old_report_does_not_take_a_checkpoint_back():
    c = alone(node("n1"), node("n2"))
    [first] = running(c, job())
    for written in ((saved(1),), (saved(1), saved(2)), (saved(1),), ()):
        tell(c, first, S.RUNNING, checkpoints=written)
    assert steps(status(c, "train").checkpoints) == [1, 2]


def test_a_run_that_began_anew_is_gone_on_with_from_where_it_is_now():
    c = alone(node("n1"), node("n2"), node("n3"))
    [first] = running(c, job())
    tell(c, first, S.RUNNING, checkpoints=(saved(90, at_ms=1),))
    [second] = stopped(c, first)
    tell(c, second, S.RUNNING, checkpoints=(saved(3, at_ms=2),))
    [third] = stopped(c, second)
    assert third.resume_from == "/ck/step-3"


def test_a_task_of_an_array_keeps_its_own():
    c = alone(node())
    [first] = running(c, job(array=Array(size=1)))
    tell(c, first, S.RUNNING, checkpoints=(saved(1),))
    assert status(c, "train").checkpoints == ()


def test_the_scheduler_remembers_after_a_restart():
    from cluster_stories import machine

    c = alone(node("n1"), node("n2"))
    [first] = running(c, job())
    tell(c, first, S.RUNNING, checkpoints=(saved(5),))
    c.restart(machine)
    assert steps(status(c, "train").checkpoints) == [5]


def test_who_has_just_saved_loses_least():
    """Both write every hour; one has told of a checkpoint a moment ago."""
    c = alone(node("n1", gpus=8))
    hourly = Checkpoint(every_s=3600.0)
    a, b = running(c, job("a", gpus=4, checkpoint=hourly), job("b", gpus=4, checkpoint=hourly))
    beat(c, 600)
    tell(c, b, S.RUNNING, checkpoints=(saved(1),))
    urgent = job("urgent", gpus=4, priority=Priority.LATENCY_CRITICAL)
    commands = c.say(m.JobSubmitted(job=urgent, token=1))
    assert [stop.allocation for stop in sent(commands, m.Stop)] == [b.allocation]
    assert a.allocation != b.allocation


def test_the_federation_hears_of_it_and_tells_the_next_cluster():
    c = federated(node("n1"))
    [order] = place(c, job())
    tell(c, order, S.RUNNING, started_at_ms=c.now_ms)
    tell(c, order, S.RUNNING, checkpoints=(saved(5),))
    told = sent(c.wait(3000), m.JobReport)
    assert steps(told[-1].checkpoints) == [5]

    f, [order] = submitted(job(), clusters=(("c1", 5.0), ("c2", 9.0)))
    reports(f, order, P.RUNNING, started_at_ms=f.now_ms, checkpoints=(saved(5),))
    assert steps(federated_status(f).checkpoints) == [5]
    commands = reports(f, order, P.QUEUED, version=9, lost=True)
    elsewhere = sent(commands + f.wait(2000), m.PlaceJob)[-1]
    assert steps(elsewhere.checkpoints) == [5]
    d = federated(node("n9"))
    [again] = sent(d.say(elsewhere), m.Run)
    assert again.resume_from == "/ck/step-5"


def test_an_agent_tells_of_each_once_and_keeps_it_over_a_restart():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    event = m.CheckpointWritten("train.1-1.0", saved(3))
    [report] = sent(a.say(event), m.AllocationReport)
    assert steps(report.checkpoints) == [3]
    assert a.say(event) == [], "it was found again after a restart, say"
    a.say(*(m.CheckpointWritten("train.1-1.0", saved(n)) for n in range(4, 9)))
    a.restart(lambda: Agent(agent().machine.node))
    [hello] = sent(a.say(m.SchedulerAttached()), m.NodeHello)
    assert steps(hello.allocations[0].checkpoints) == [6, 7, 8]


def test_what_comes_after_the_end_is_left_out():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    a.say(m.ReplicaExited(allocation="train.1-1.0", exit_code=0, by_itself=True))
    assert a.say(m.CheckpointWritten("train.1-1.0", saved(3))) == []
    assert a.say(m.CheckpointWritten("never-here.1-1.0", saved(3))) == []
