"""Stories about who gives way to whom: classes, queues, windows, promises."""

from cluster_stories import (
    S,
    alone,
    beat,
    job,
    machine,
    node,
    phases,
    queues,
    running,
    say,
    sent,
    submit,
    tell,
)

from hyperion.control import messages as m
from hyperion.model.job import Array, Checkpoint, Priority
from hyperion.model.queue import Queue
from hyperion.model.window import Window

LC, ULL = Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY


def test_an_urgent_job_stops_a_batch_job_and_takes_its_place():
    c = alone(node(gpus=8))
    [batch] = running(c, job("batch", gpus=8))
    commands = c.say(m.JobSubmitted(job=job("urgent", gpus=8, priority=LC), token=1))
    assert [stop.allocation for stop in sent(commands, m.Stop)] == [batch.allocation]
    assert sent(commands, m.Run) == [], "not before the other is gone"
    status = c.machine.state.jobs["urgent"].status
    assert status.claim
    [run] = sent(tell(c, batch, S.STOPPED), m.Run)
    assert run.job.id == "urgent"
    assert phases(c) == {"batch": "queued", "urgent": "starting"}
    assert c.machine.state.jobs["batch"].status.preemptions == 1


def test_who_asks_before_submitting_is_told_whom_it_would_stop():
    c = alone(node(gpus=8))
    running(c, job("batch", gpus=8, checkpoint=Checkpoint(grace_s=20.0)))
    told = c.machine.prospects.trial(job("urgent", gpus=8, priority=LC), c.now_ms)
    assert told.preempts == ("batch",)
    assert told.starts_at_ms == c.now_ms + 20_000
    assert phases(c) == {"batch": "running"}, "asking changes nothing"
    equal = c.machine.prospects.trial(job("equal", gpus=8), c.now_ms)
    assert equal.preempts == ()


def test_a_place_is_kept_as_long_as_those_that_were_leaving_already_take():
    """It needs all of the node: what its victim leaves, and what was being ended before."""
    c = alone(node("n1", gpus=8))
    slow, quick = (
        job(name, gpus=4, checkpoint=Checkpoint(grace_s=grace_s))
        for name, grace_s in (("slow", 120.0), ("quick", 1.0))
    )
    [ending, _] = running(c, slow, quick)
    c.say(m.JobCancelRequested(job="slow", by="x", token=1))
    commands = c.say(m.JobSubmitted(job=job("urgent", gpus=8, priority=LC), token=1))
    [stop] = sent(commands, m.Stop)
    tell(c, stop, S.STOPPED)
    until_ms = c.machine.state.jobs["urgent"].status.claimed_until_ms
    assert until_ms >= c.now_ms + 120_000, "the slow one has two minutes"
    beat(c, 60)
    runs = sent(tell(c, ending, S.STOPPED), m.Run)
    assert [run.job.id for run in runs] == ["urgent"]


def test_nobody_else_takes_the_place_that_is_being_cleared():
    c = alone(node(gpus=8))
    small = running(c, *(job(f"b{n}", gpus=1) for n in range(8)))
    c.say(m.JobSubmitted(job=job("urgent", gpus=8, priority=LC), token=1))
    tell(c, small[0], S.STOPPED)
    assert submit(c, job("sneaky", gpus=1)) == []
    assert sent(say(c, small[1:7], S.STOPPED), m.Run) == []
    [run] = sent(tell(c, small[7], S.STOPPED), m.Run)
    assert run.job.id == "urgent"


def test_a_claim_survives_a_restart():
    c = alone(node(gpus=8))
    [batch] = running(c, job("batch", gpus=8))
    c.say(m.JobSubmitted(job=job("urgent", gpus=8, priority=LC), token=1))
    c.restart(machine)
    c.machine.state.check()
    assert c.machine.state.claims.keys() == {"urgent"}
    c.say(m.NodeAttached(hello=m.NodeHello(node=node(gpus=8))))
    [run] = sent(tell(c, batch, S.STOPPED), m.Run)
    assert run.job.id == "urgent"


def test_equals_wait_and_only_the_most_urgent_takes_from_the_urgent():
    c = alone(node(gpus=8))
    [first] = running(c, job("first", gpus=8, priority=LC))
    assert sent(c.say(m.JobSubmitted(job=job("second", gpus=8, priority=LC))), m.Stop) == []
    stops = sent(c.say(m.JobSubmitted(job=job("hft", gpus=8, priority=ULL))), m.Stop)
    assert [stop.allocation for stop in stops] == [first.allocation]


def test_the_job_that_loses_least_gives_way():
    c = alone(node("n1", gpus=1, cpus=2), node("n2", gpus=1, cpus=2))
    careless, careful = running(
        c,
        job("careless", gpus=1),
        job("careful", gpus=1, checkpoint=Checkpoint(dir="/ckpt", every_s=1.0)),
    )
    beat(c, 30)
    stops = sent(c.say(m.JobSubmitted(job=job("urgent", gpus=1, priority=LC))), m.Stop)
    assert [stop.allocation for stop in stops] == [careful.allocation]
    assert careless.allocation != careful.allocation


def test_a_gang_is_preempted_whole():
    c = alone(node("n1", gpus=8), node("n2", gpus=8))
    prepares = submit(c, job("gang", gpus=8, replicas=2))
    runs = sent(say(c, prepares, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    stops = sent(c.say(m.JobSubmitted(job=job("urgent", gpus=1, priority=LC))), m.Stop)
    assert len(stops) == 2


def test_only_as_many_tasks_of_an_array_stop_as_are_needed():
    c = alone(node(gpus=8))
    runs = submit(c, job("sweep", gpus=1, array=Array(size=100)))
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    stops = sent(c.say(m.JobSubmitted(job=job("urgent", gpus=2, priority=LC))), m.Stop)
    assert len(stops) == 2
    again = sent(say(c, stops, S.STOPPED), m.Run)
    assert [run.job.id for run in again] == ["urgent"]
    assert c.machine.state.jobs["sweep"].status.tasks.running() == 6


TREE = (
    Queue(name="lab"),
    Queue(name="vision", parent="lab", quota={"gpus_milli": 4000}),
    Queue(name="speech", parent="lab", quota={"gpus_milli": 4000}),
)


def test_a_queue_borrows_what_is_idle_and_gives_it_back():
    c = alone(node(gpus=8, cpus=64))
    queues(c, *TREE)
    borrowed = running(c, *(job(f"v{n}", gpus=1, queue="vision") for n in range(8)))
    assert len(borrowed) == 8
    stops = sent(c.say(m.JobSubmitted(job=job("s0", gpus=2, queue="speech"))), m.Stop)
    assert len(stops) == 2
    [run] = sent(say(c, stops, S.STOPPED), m.Run)
    assert run.job.id == "s0"


def test_a_lender_does_not_wait_behind_a_gang_that_is_partly_its_queues_own():
    c = alone(*(node(f"n{i}", gpus=2) for i in range(4)))
    queues(c, *TREE)
    wide = job("wide", gpus=2, replicas=3, queue="vision")
    runs = sent(say(c, submit(c, wide), S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING)
    stops = sent(c.say(m.JobSubmitted(job=job("mine", gpus=2, replicas=2, queue="speech"))), m.Stop)
    assert len(stops) == 3, "whole, as a gang goes"
    started = sent(say(c, stops, S.STOPPED), m.Prepare)
    assert {order.job.id for order in started} == {"mine"}
    assert phases(c)["wide"] == "queued", "it waits, and takes nothing back: it needs to borrow"


def test_who_is_over_its_quota_is_told_by_which_limit():
    c = alone(node(gpus=8, cpus=64))
    queues(c, Queue(name="small", quota={"gpus_milli": 2000}))
    submit(c, job("first", gpus=2, queue="small"), job("second", gpus=2, queue="small"))
    beat(c, 3)
    reason = c.machine.state.jobs["second"].status.reason
    assert reason == "over what queue small may have: 2 GPUs"


def test_nobody_is_reclaimed_from_within_its_own_quota():
    c = alone(node(gpus=8, cpus=64))
    queues(c, *TREE)
    running(c, *(job(f"v{n}", gpus=1, queue="vision") for n in range(4)))
    running(c, *(job(f"s{n}", gpus=1, queue="speech") for n in range(4)))
    assert sent(c.say(m.JobSubmitted(job=job("s9", gpus=1, queue="speech"))), m.Stop) == []


def test_a_quota_holds_though_there_is_room():
    c = alone(node(gpus=8, cpus=64))
    queues(c, Queue(name="small", quota={"gpus_milli": 2000}))
    assert len(submit(c, *(job(f"j{n}", gpus=1, queue="small") for n in range(5)))) == 2
    assert len(submit(c, job("other", gpus=1))) == 1, "the default queue has no quota"


def test_a_queue_that_is_not_there_is_named():
    c = alone()
    [answer] = c.say(m.JobSubmitted(job=job("j", queue="nowhere"), token=1))
    assert 'no queue "nowhere"' in answer.error


def test_a_queue_with_jobs_in_it_stays():
    c = alone()
    queues(c, *TREE)
    submit(c, job("j", queue="vision"))
    [answer] = c.say(m.QueuesApplied(queues=(), token=1))
    assert 'queue "vision" has jobs' in answer.error


def test_nicer_jobs_of_a_queue_make_way_where_it_says_so():
    c = alone(node(gpus=8, cpus=64))
    queues(c, Queue(name="q", quota={"gpus_milli": 1000}, preempt_within=True))
    [nice] = running(c, job("nice", gpus=1, queue="q", nice=10))
    stops = sent(c.say(m.JobSubmitted(job=job("now", gpus=1, queue="q"))), m.Stop)
    assert [stop.allocation for stop in stops] == [nice.allocation]
    [run] = sent(tell(c, nice, S.STOPPED), m.Run)
    assert run.job.id == "now"


def window(c, begins_s, lasts_s, nodes=("n1",), **more):
    begins_ms = c.now_ms + 1000 * begins_s
    made = Window(
        id="w1", begins_at_ms=begins_ms, ends_at_ms=begins_ms + 1000 * lasts_s, nodes=nodes, **more
    )
    [answer] = [x for x in c.say(m.WindowApplied(window=made, token=5)) if hasattr(x, "error")]
    assert answer.error == "", answer.error


def test_before_maintenance_only_what_ends_in_time_starts():
    c = alone(node("n1"))
    window(c, begins_s=60, lasts_s=60)
    assert submit(c, job("long", expected_s=300.0), job("unknown")) == []
    assert len(submit(c, job("short", expected_s=20.0))) == 1


def test_maintenance_clears_its_nodes_and_ends():
    c = alone(node("n1", gpus=8), node("n2", gpus=0))
    [run] = running(c, job("train"))
    window(c, begins_s=5, lasts_s=10)
    stops = sent(beat(c, 7), m.Stop)
    assert [stop.allocation for stop in stops] == [run.allocation]
    tell(c, run, S.STOPPED)
    assert phases(c) == {"train": "queued"}
    assert len(sent(beat(c, 10), m.Run)) == 1, "the window is over"
    assert c.machine.state.windows == {}


def test_a_reservation_admits_its_own():
    c = alone(node("n1"))
    window(c, begins_s=0.5, lasts_s=600, users=("ann",))
    beat(c, 1)
    assert submit(c, job("bob", user="bob", expected_s=10.0)) == []
    assert len(submit(c, job("ann", user="ann", expected_s=10.0, reservation="w1"))) == 1


def test_small_jobs_do_not_keep_a_wide_one_waiting_for_ever():
    c = alone(node("n1", gpus=4), node("n2", gpus=4))
    busy = running(c, *(job(f"b{n}", gpus=4, expected_s=10.0) for n in range(2)))
    submit(c, job("wide", gpus=4, replicas=2))
    beat(c, 2)
    tell(c, busy[0], S.SUCCEEDED)
    assert submit(c, job("long", gpus=4, expected_s=1000.0)) == [], "it would delay the wide one"
    assert len(submit(c, job("brief", gpus=4, expected_s=2.0))) == 1, "this one is gone by then"


def test_cheap_jobs_are_moved_together_so_that_a_gang_can_start():
    c = alone(*(node(f"n{i}", gpus=2, cpus=8) for i in range(4)), policy="spread")
    cheap = Checkpoint(dir="/ckpt", every_s=1.0)
    small = running(c, *(job(f"s{i}", gpus=1, checkpoint=cheap) for i in range(4)))
    assert len({c.machine.state.allocations[run.allocation].node for run in small}) == 4
    assert submit(c, job("gang", gpus=2, replicas=2)) == [], "four GPUs are free, but no two of one"
    stops = list({stop.allocation: stop for stop in sent(beat(c, 36), m.Stop)}.values())
    assert len(stops) == 2
    prepares = sent(say(c, stops, S.STOPPED), (m.Prepare, m.Run))
    assert sorted(order.job.id for order in prepares if order.job.id == "gang") == ["gang"] * 2
    assert {"queued"} & set(phases(c).values()) == set(), "and those that moved run elsewhere"
