"""Stories about what wakes those that wait: reservations, windows, promises, affinity, quotas."""

import pytest
from cluster_stories import (
    S,
    alone,
    beat,
    federated,
    job,
    node,
    phases,
    place,
    queues,
    running,
    say,
    sent,
    status,
    submit,
    tell,
)

from hyperion.control import messages as m
from hyperion.control import rounds
from hyperion.model.constraints import ReplicaTerm
from hyperion.model.job import Array, Checkpoint, Elastic, Job, Priority
from hyperion.model.queue import Queue
from hyperion.model.resources import ResourceRequest
from hyperion.model.window import Window

LC = Priority.LATENCY_CRITICAL
FAR_S = 10_000


def window(c, begins_s=0, ends_s=2 * FAR_S, nodes=("n1",), **more):
    begins_ms, ends_ms = (c.now_ms + 1000 * each for each in (begins_s, ends_s))
    made = Window(id="w", begins_at_ms=begins_ms, ends_at_ms=ends_ms, nodes=nodes, **more)
    c.say(m.WindowApplied(window=made, token=1))


def promises(c):
    return c.machine.state.calendar.promises


# -- reservations and windows ---------------------------------------------------------------------


def test_a_job_starts_when_its_reservation_begins():
    c = alone(node("n1", gpus=8))
    window(c, begins_s=5, users=("ann",))
    assert submit(c, job("hers", gpus=1, reservation="w", user="ann")) == []
    assert [run.job.id for run in sent(beat(c, 7), m.Run)] == ["hers"]


def test_an_array_does_not_outlive_its_reservation():
    c = alone(node("n1", gpus=1))
    window(c, ends_s=20, users=("ann",))
    sweep = job("sweep", gpus=1, array=Array(size=3), reservation="w", user="ann")
    runs = submit(c, sweep)
    assert len(runs) == 1
    beat(c, 25)
    say(c, runs, S.STOPPED)
    beat(c, 3)
    assert phases(c) == {"sweep": "failed"}
    assert status(c, "sweep").reason.startswith("its reservation w has ended")


def test_a_window_far_ahead_keeps_nobody_from_a_promise():
    c = alone(node("n1", gpus=8), node("n2", gpus=8))
    running(c, job("r1", gpus=8), job("r2", gpus=8))
    submit(c, job("big", gpus=8, user="ann"))
    window(c, begins_s=FAR_S, nodes=("n2",))
    beat(c, 5)
    assert c.machine.state.queue.blocked
    assert list(promises(c)) == ["big"]


def test_a_job_that_fits_nowhere_does_not_keep_others_from_growing():
    c = alone(node("n1", cpus=2, gpus=0), grow_after_ms=1000)
    resizes = Elastic(min=1, restart=False)
    first = submit(c, job("grows", gpus=0, replicas=4, elastic=resizes))
    runs = sent(say(c, first, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    submit(c, job("hopeless", gpus=1, user="ann"))
    window(c, begins_s=FAR_S)
    beat(c, 3)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node("n2", cpus=2, gpus=0))))
    assert len(sent(beat(c, 5), m.Prepare)) >= 2


# -- promises -------------------------------------------------------------------------------------


def behind_a_promise(expected_s=100):
    """Half of a node is taken; the whole of it is promised to another job."""
    c = alone(node("n1", gpus=8, cpus=64))
    [half] = running(c, job("half", gpus=4, expected_s=expected_s))
    submit(c, job("big", gpus=8, expected_s=100))
    beat(c, 3)
    assert list(promises(c)) == ["big"]
    return c, half


def test_those_that_can_never_start_take_no_promise_from_others():
    c = alone(node("n1", gpus=8))
    running(c, job("r1", gpus=4, expected_s=100), job("r2", gpus=4, expected_s=100))
    submit(c, job("x1", gpus=16), job("x2", gpus=17), job("big", gpus=8, expected_s=100))
    beat(c, 5)
    assert list(promises(c)) == ["big"]


def test_what_a_promise_kept_free_is_given_away_once_it_is_withdrawn():
    c, _ = behind_a_promise(expected_s=3600)
    assert submit(c, job("long", gpus=4, expected_s=36_000)) == []
    beat(c, 2)
    orders = c.say(m.JobCancelRequested(job="big", by="x", token=1)) + beat(c, 2)
    assert {run.job.id for run in sent(orders, m.Run)} == {"long"}


def test_guests_leave_when_the_promised_start_has_come():
    c, half = behind_a_promise()
    guests = running(c, job("guest", gpus=1, array=Array(size=2), expected_s=30))
    assert len(guests) == 2
    beat(c, 85)
    tell(c, half, S.SUCCEEDED)
    stops = sent(beat(c, 20), m.Stop)
    assert {stop.allocation for stop in stops} == {guest.allocation for guest in guests}


def test_who_has_outstayed_is_let_in_again_more_and_more_rarely():
    """The other half runs on and on, so the promised start is put off each time."""
    c, _ = behind_a_promise()
    submit(c, job("guest", gpus=1, expected_s=5))
    starts, until_ms = 1, c.now_ms + 600_000
    while c.now_ms < until_ms:
        orders = beat(c, 1)
        stops = [stop for stop in sent(orders, m.Stop) if stop.allocation.startswith("guest")]
        for stop in stops:
            starts += len(sent(tell(c, stop, S.STOPPED), m.Run))
        for run in sent(orders, m.Run):
            tell(c, run, S.RUNNING)
            starts += 1
    assert starts < 10


def test_the_tasks_of_an_array_do_not_make_way_for_its_next_one():
    c = alone(node("n1", gpus=2))
    first = running(c, job("sweep", gpus=1, array=Array(size=4), expected_s=5))
    assert len(first) == 2
    assert sent(beat(c, 60), m.Stop) == []


def test_an_array_that_succeeds_while_it_makes_way_has_succeeded():
    c, half = behind_a_promise()
    guests = running(c, job("guest", gpus=1, array=Array(size=2), expected_s=30))
    beat(c, 85)
    tell(c, half, S.SUCCEEDED)
    assert sent(beat(c, 20), m.Stop)
    runs = sent(say(c, guests, S.SUCCEEDED), m.Run)
    assert phases(c)["guest"] == "succeeded"
    assert [run.job.id for run in runs] == ["big"]


def test_the_impossible_do_not_keep_others_from_being_moved_together():
    c = alone(
        *(node(f"n{i}", gpus=8, cpus=64) for i in range(2)),
        policy="spread",
        consolidate_after_ms=1000,
    )
    cheap = Checkpoint(dir="/ckpt", every_s=1.0)
    running(c, *(job(f"r{i}", gpus=2, checkpoint=cheap) for i in range(2)))
    submit(c, *(job(f"x{i}", gpus=16 + i) for i in range(4)), job("big", gpus=8))
    assert sent(beat(c, 40), m.Stop)


def test_what_was_refused_to_jobs_that_are_gone_is_forgotten():
    c = alone(node("n1", gpus=1, cpus=64))
    running(c, job("busy", gpus=1))
    for n in range(20):
        submit(c, job(f"j{n}", gpus=1, cpus=1 + n / 100))
        c.say(m.JobCancelRequested(job=f"j{n}", by="x", token=1))
    beat(c, 3)
    assert len(c.machine.rounds.refusals) == 0


def test_urgent_jobs_beyond_the_searches_of_one_round_are_served_by_the_next(monkeypatch):
    monkeypatch.setattr(rounds, "SEARCHES_PER_ROUND", 2)
    c = alone(*(node(f"n{n}", gpus=1) for n in range(4)))
    running(c, *(job(f"b{n}", gpus=1) for n in range(4)))
    stops = []
    for n in range(4):
        urgent = job(f"u{n}", gpus=1, cpus=1 + n / 100, priority=LC)
        c._take(c.machine.handle(m.JobSubmitted(job=urgent, token=1), c.now_ms))
    for _ in range(10):
        if c.machine.wants_round:
            outcome = c.machine.round(c.now_ms)
            stops += sent(outcome.commands, m.Stop)
            c._take(outcome)
    assert len(stops) == 4


def test_a_job_that_waits_for_its_victims_says_so():
    c = alone(node("n1", gpus=8))
    running(c, job("batch", gpus=8, checkpoint=Checkpoint(grace_s=60.0)))
    submit(c, job("u1", gpus=8, priority=LC), job("u2", gpus=8, priority=LC))
    beat(c, 5)
    assert "waits until" in c.machine.prospects.of("u1", c.now_ms).remark


def test_nobody_is_told_now_of_what_begins_later():
    c = alone(node("n1", gpus=8))
    submit(c, job("late", gpus=1, begin_s=3600.0))
    hour_ms = c.now_ms + 3_590_000
    assert c.machine.prospects.of("late", c.now_ms).starts_at_ms > hour_ms
    trial = c.machine.prospects.trial(job("trial", gpus=0, begin_s=3600.0), c.now_ms)
    assert trial.starts_at_ms > hour_ms


# -- affinity -------------------------------------------------------------------------------------


def test_a_job_that_wants_to_be_near_another_follows_it():
    c = alone(node("n1", gpus=8))
    near = (ReplicaTerm(labels=(("app", "db"),)),)
    assert submit(c, job("near", gpus=1, replica_affinity=near)) == []
    runs = submit(c, job("db", gpus=1, metadata={"app": "db"}))
    runs += sent(beat(c, 3), m.Run)
    assert {run.job.id for run in runs} == {"db", "near"}


def test_a_job_that_another_does_not_want_near_waits_with_a_reason_and_a_promise():
    c = alone(node("n1", gpus=8, cpus=64), node("n2", gpus=8, cpus=64))
    alone_there = (ReplicaTerm(labels=(("app", "x"),), anti=True),)
    running(c, job("svc", gpus=1, replica_affinity=alone_there, expected_s=500))
    running(c, job("r", gpus=8, expected_s=100))
    submit(c, job("x", gpus=1, metadata={"app": "x"}, expected_s=100))
    beat(c, 5)
    assert status(c, "x").reason
    assert list(promises(c)) == ["x"]
    assert not c.machine.wants_round, "nothing has changed"


# -- quotas ---------------------------------------------------------------------------------------


def test_what_waits_for_more_than_its_queue_may_hold_from_now_on_is_given_back():
    c = federated(node("n1", gpus=8))
    queues(c, Queue(name="q", quota={"gpus_milli": 8000}))
    place(c, job("runs", gpus=4, queue="q"))
    assert place(c, job("small", gpus=1, queue="q", begin_s=60.0)) == []
    assert place(c, job("wide", gpus=8, queue="q")) == []
    queues(c, Queue(name="q", quota={"gpus_milli": 4000}))
    assert status(c, "wide").refused
    assert phases(c) == {"runs": "starting", "small": "queued", "wide": "cancelled"}


@pytest.mark.parametrize(
    ("quota", "alternatives"),
    [
        (
            {"gpus_milli": 4000},
            (
                ResourceRequest(gpus_milli=2000, gpu_type="H100"),
                ResourceRequest(gpus_milli=8000, gpu_type="A100"),
            ),
        ),
        ({"gpus_milli/A100": 2000}, (ResourceRequest(gpus_milli=8000),)),
    ],
    ids=["another alternative", "another type"],
)
def test_a_quota_counts_what_was_found_not_what_was_asked(quota, alternatives):
    c = alone(node("n1", gpus=8))
    queues(c, Queue(name="q", quota=quota))
    wants = Job(id="j", queue="q", command=("true",), alternatives=alternatives)
    assert submit(c, wants) == []
    c.machine.state.check()
