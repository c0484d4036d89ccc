"""Stories about standbys: they lend their CPUs, and have them back when they are wanted."""

from cluster_stories import S, alone, beat, phases, running, say, sent, status, submit, tell
from msgspec.structs import replace
from stories import job as any_job
from test_cluster_pausing import job, node, plain_node

from hyperion.control import messages as m
from hyperion.model.allocation import Freeze
from hyperion.model.checks import check
from hyperion.model.job import Array, Elastic, Pausing, Priority, Standby

LC, ULL = Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY


def standby(id="serve", cpus=4, **more):
    return job(id, cpus=cpus, priority=LC, standby=Standby(port=8080), **more)


def warm(c, *jobs):
    """These standbys run, and wait to be wanted; their orders."""
    orders = running(c, *jobs)
    for order in orders:
        tell(c, order, S.WARM, turn=1)
    return orders


def borrower(c, *jobs):
    """These jobs start on what is lent; (their orders, the newest guard, None if that stays)."""
    commands = c.say(*(m.JobSubmitted(job=each, token=1) for each in jobs))
    runs = sent(commands, m.Run)
    guards = sent(say(c, runs, S.RUNNING, started_at_ms=c.now_ms), m.Guard)
    return runs, guards[-1] if guards else None


def activated(c, serve, *victims, turn=2):
    """Its node tells that it is wanted, and who stands still for it; the commands."""
    freeze = Freeze(stopped_us=200, confirmed_us=400, threads=4, how="freezer")
    out = tell(c, serve, S.RUNNING, turn=turn, freeze=freeze)
    for victim in victims:
        out += tell(c, victim, S.PAUSED, turn=1, stands_for=serve.allocation, freeze=freeze)
    return out


def test_a_standby_lends_its_cpus_to_those_that_can_stand_still():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    assert status(c, "serve").reason == "waits to be wanted; its CPUs are lent"
    [batch], guard = borrower(c, job("batch", cpus=4))
    assert guard == m.Guard(serve.allocation, (m.Yielding(batch.allocation, 35_000),))
    assert phases(c) == {"serve": "running", "batch": "running"}
    c.machine.state.check()


def test_nothing_is_lent_to_whoever_cannot_stand_still():
    for more in (
        {"pausing": Pausing(forbidden=True)},
        {"array": Array(size=3)},
        {"priority": LC},
        {"gpus": 1},
    ):
        c = alone(node(cpus=4, gpus=1))
        warm(c, standby())
        assert submit(c, job("other", cpus=4, **more)) == [], more
        c.machine.state.check()


def test_who_cannot_borrow_keeps_nobody_waiting_who_can():
    for gpus, no, yes in ((0, Pausing(forbidden=True), Pausing()), (1, Pausing(), PACED)):
        c = alone(node(cpus=4, gpus=1))
        warm(c, standby())
        assert submit(c, job("first", cpus=4, gpus=gpus, pausing=no)) == []
        [run] = submit(c, job("next", cpus=4, gpus=gpus, pausing=yes))
        assert run.job.id == "next"


# -- GPUs -----------------------------------------------------------------------------------------

PACED = Pausing(gpu_queue_s=0.006)


def beside_a_standby(pausing=PACED, **more):
    """A standby and a batch job with half of the only GPU each, and CPUs for both."""
    c = alone(node(cpus=8, gpus=1))
    [serve] = warm(c, standby(cpus=2, gpus=0.5))
    batch, guard = borrower(c, job("batch", cpus=2, gpus=0.5, pausing=pausing, **more))
    return c, serve, batch[0], guard


def test_who_shares_a_gpu_with_a_standby_makes_way_when_it_is_wanted():
    c, serve, batch, guard = beside_a_standby()
    assert guard == m.Guard(serve.allocation, (m.Yielding(batch.allocation, 35_000),))
    activated(c, serve, batch)
    assert status(c, "batch").paused_for == "serve"
    [resume] = sent(tell(c, serve, S.WARM, turn=3), m.Resume)
    assert resume.allocation == batch.allocation
    c.machine.state.check()


def test_without_its_word_it_stays_where_it_is():
    *_, guard = beside_a_standby(pausing=Pausing())
    assert guard is None


def test_it_stays_where_it_is_on_another_gpu():
    c = alone(node(cpus=8, gpus=2))
    warm(c, standby(cpus=2, gpus=1))
    _, guard = borrower(c, job("batch", cpus=2, gpus=1, pausing=PACED))
    assert guard is None


def test_it_goes_on_only_when_no_other_standby_wants_its_gpu():
    c = alone(node(cpus=8, gpus=1))
    first, second = warm(c, standby("a", cpus=1, gpus=0.3), standby("b", cpus=1, gpus=0.3))
    [batch], _ = borrower(c, job("batch", cpus=1, gpus=0.4, pausing=PACED))
    activated(c, first, batch)
    activated(c, second)
    assert sent(tell(c, first, S.WARM, turn=3), m.Resume) == []
    assert status(c, "batch").paused_for == "b"
    [resume] = sent(tell(c, second, S.WARM, turn=3), m.Resume)
    assert resume.allocation == batch.allocation


def test_one_that_was_stopped_for_its_gpu_comes_back_more_and_more_rarely():
    c, serve, batch, _ = beside_a_standby(pausing=replace(PACED, hold_s=5.0))
    activated(c, serve, batch)
    [stop] = sent(beat(c, 7), m.Stop)
    away_s = []
    for _ in range(3):
        begun_ms = c.now_ms
        runs = sent(tell(c, stop, S.STOPPED), m.Run)
        while not runs:
            assert c.now_ms - begun_ms < 60_000
            runs = sent(beat(c, 1), m.Run)
        away_s.append((c.now_ms - begun_ms) / 1000)
        tell(c, runs[0], S.RUNNING, started_at_ms=c.now_ms)
        pause, *_ = sent(beat(c, 2), m.Pause)
        tell(c, pause, S.PAUSED)
        stop, *_ = sent(beat(c, 7), m.Stop)
    assert 5 < away_s[0] < 15 < away_s[1] < 25 < away_s[2] < 45, away_s
    c.machine.state.check()


def test_with_its_word_it_may_borrow_cpus_though_it_holds_a_gpu():
    c = alone(node(cpus=4, gpus=1))
    warm(c, standby(cpus=4))
    assert len(submit(c, job("other", cpus=4, gpus=1, pausing=PACED))) == 1


def test_with_its_word_it_stands_still_for_whoever_lacks_cpus():
    c = alone(node(cpus=4, gpus=1))
    [batch] = running(c, job("batch", cpus=4, gpus=1, pausing=PACED))
    commands = c.say(m.JobSubmitted(job=job("urgent", cpus=4, priority=LC), token=1))
    assert [pause.allocation for pause in sent(commands, m.Pause)] == [batch.allocation]


def test_how_much_waits_on_a_gpu_is_bounded():
    wrong = any_job("j", pausing=Pausing(gpu_queue_s=1.5))
    [fault] = check(wrong)
    assert fault.pointer == "/pausing/gpu_queue"
    assert "expected 0 to 1 s" in fault.message


def test_a_node_that_cannot_pause_lends_nothing():
    c = alone(plain_node(cpus=4))
    warm(c, standby())
    assert submit(c, job("batch", cpus=4)) == []


def test_what_is_free_is_used_before_what_is_lent():
    c = alone(node("n1", cpus=4), node("n2", cpus=4))
    [serve] = warm(c, standby())
    [batch] = submit(c, job("batch", cpus=4))
    nodes = {c.machine.state.allocations[x.allocation].node for x in (serve, batch)}
    assert nodes == {"n1", "n2"}


def test_memory_is_never_lent():
    c = alone(node(cpus=4, memory=8000))
    warm(c, standby(memory=6000))
    assert submit(c, job("large", cpus=4, memory=4000)) == []
    assert len(submit(c, job("small", cpus=4, memory=2000))) == 1


def test_wanted_it_has_its_cpus_and_quiet_again_the_others_go_on():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    [batch], _ = borrower(c, job("batch", cpus=4))
    assert sent(activated(c, serve, batch), (m.Pause, m.Stop)) == [], "its node has done it all"
    assert status(c, "batch").paused_for == "serve"
    assert status(c, "serve").reason == ""
    c.machine.state.check()
    beat(c, 2)
    [resume] = sent(tell(c, serve, S.WARM, turn=3), m.Resume)
    assert resume.allocation == batch.allocation
    tell(c, batch, S.RUNNING, turn=1)
    assert (status(c, "batch").paused_for, status(c, "batch").preemptions) == ("", 0)
    assert 2000 <= status(c, "batch").paused_ms < 2200
    assert len(c.machine.pausing.promise.activations) == 1
    c.machine.state.check()


def test_an_active_standby_lends_nothing():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    activated(c, serve)
    assert submit(c, job("batch", cpus=4)) == []
    commands = tell(c, serve, S.WARM, turn=3)
    assert [run.job.id for run in sent(commands, m.Run)] == ["batch"]


def test_the_guard_takes_no_more_than_it_must_and_the_newest_first():
    c = alone(node(cpus=8))
    [serve] = warm(c, standby(cpus=4))
    running(c, job("old", cpus=2))
    beat(c, 1)
    running(c, job("young", cpus=2))
    [last], guard = borrower(c, job("last", cpus=4))
    assert [v.allocation for v in guard.victims] == [last.allocation]
    assert guard.allocation == serve.allocation


def test_peers_of_one_that_stands_still_stand_still_too():
    c = alone(node("n1", cpus=4), node("n2", cpus=4))
    [serve] = warm(c, standby(cpus=3))
    there = c.machine.state.allocations[serve.allocation].node
    prepared = sent(c.say(m.JobSubmitted(job=job("gang", cpus=3, replicas=2), token=1)), m.Prepare)
    runs = sent(say(c, prepared, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    here = [x for x in runs if c.machine.state.allocations[x.allocation].node == there]
    [other] = [x for x in runs if x not in here]
    [pause] = sent(activated(c, serve, *here), m.Pause)
    assert pause.at_once, "whatever its own job would rather have"
    assert pause.allocation == other.allocation
    c.machine.state.check()


def test_who_began_too_late_for_the_guard_is_told_to_stand_still():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    [batch] = submit(c, job("batch", cpus=4))
    activated(c, serve)
    say(c, [batch], S.RUNNING, started_at_ms=c.now_ms)
    pauses = sent(beat(c, 1), m.Pause)
    assert {pause.allocation for pause in pauses} == {batch.allocation}
    c.machine.state.check()


def test_who_does_not_stand_still_for_it_is_stopped():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    [batch], _ = borrower(c, job("batch", cpus=4))
    activated(c, serve, batch)
    commands = tell(c, batch, S.RUNNING, turn=1, reason="its hold has ended")
    assert [stop.allocation for stop in sent(commands, m.Stop)] == [batch.allocation]
    assert "its hold has ended" in status(c, "batch").reason


def test_a_report_that_was_overtaken_changes_nothing():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    activated(c, serve, turn=4)
    tell(c, serve, S.WARM, turn=3)
    assert c.machine.state.allocations[serve.allocation].state is S.RUNNING


def test_one_that_borrows_nothing_may_sit_beside_borrowers():
    """Both it and the lender have their CPUs when the borrower stands still."""
    c = alone(node(cpus=8))
    warm(c, standby(cpus=4))
    running(c, job("batch", cpus=4))
    [run] = submit(c, job("firm", cpus=4, pausing=Pausing(forbidden=True)))
    assert run.job.id == "firm"
    assert submit(c, job("more", cpus=1, pausing=Pausing(forbidden=True))) == []
    c.machine.state.check()


def test_a_node_that_comes_back_is_told_again():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    borrower(c, job("batch", cpus=4))
    hello = m.NodeHello(node=node(cpus=4), allocations=tuple(reports(c)))
    guards = sent(c.say(m.NodeAttached(hello=hello)), m.Guard)
    assert [guard.allocation for guard in guards] == [serve.allocation]
    assert len(guards[0].victims) == 1


def reports(c):
    for a in c.machine.state.allocations.values():
        yield m.AllocationReport(
            allocation=a.id, generation=a.generation, state=a.state, turn=a.turn
        )


def test_after_a_restart_of_the_scheduler_it_still_lends():
    c = alone(node(cpus=4))
    [serve] = warm(c, standby())
    [batch], _ = borrower(c, job("batch", cpus=4))
    activated(c, serve, batch)
    before = c.machine
    c.restart(lambda: alone().machine)
    assert c.machine.state.jobs == before.state.jobs
    assert [a.id for a in c.machine.state.occupancy.lending.on("n1")] == [serve.allocation]
    c.machine.state.check()


def test_a_standby_is_for_urgent_jobs_of_a_fixed_width():
    def faults(**more):
        return [fault.pointer for fault in check(any_job("x", command=("true",), **more))]

    kept = Standby(port=8080)
    assert faults(standby=kept, priority=LC) == []
    assert faults(standby=kept) == ["/standby"]
    assert "/standby" in faults(standby=kept, priority=LC, array=Array(size=2))
    assert "/standby" in faults(standby=kept, priority=ULL, elastic=Elastic(min=1))
    assert faults(standby=Standby(port=70_000), priority=LC) == ["/standby/port"]
    assert faults(standby=replace(kept, quiet_s=-1.0), priority=LC) == ["/standby/quiet"]
