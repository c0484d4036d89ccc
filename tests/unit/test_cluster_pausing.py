"""Stories about jobs that stand still for more urgent ones, and go on where they were."""

from cluster_stories import S, alone, beat, machine, phases, running, say, sent, status, tell
from cluster_stories import node as any_node
from msgspec.structs import replace
from stories import job as any_job
from stories import names
from test_agent_machine import leased, run

from hyperion.control import messages as m
from hyperion.daemon.promise_views import promise_views
from hyperion.model.allocation import Freeze
from hyperion.model.job import Checkpoint, Pausing, Priority, SavedCheckpoint
from hyperion.model.node import CRIU, PAUSE

LC, ULL = Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY


def plain_node(name="n1", cpus=4, gpus=0, memory=65_536):
    made = any_node(name, gpus=gpus, cpus=cpus)
    return replace(made, capacity=replace(made.capacity, memory_mib=memory))


def node(name="n1", **has):
    return replace(plain_node(name, **has), abilities={PAUSE: "tested"})


def job(id, cpus=4, gpus=0, memory=0, **more):
    made = any_job(id, gpus=gpus, cpus=cpus, **more)
    return replace(made, alternatives=(replace(made.alternatives[0], memory_mib=memory),))


def urgent(c, id="urgent", priority=LC, **needs):
    """Submit it; what the machine commands then."""
    return c.say(m.JobSubmitted(job=job(id, priority=priority, **needs), token=1))


def paused(c, *victims):
    """A cluster in which the urgent job runs over its victims."""
    pauses = sent(urgent(c, cpus=4), m.Pause)
    assert {p.allocation for p in pauses} == {v.allocation for v in victims}
    [run] = sent(say(c, victims, S.PAUSED), m.Run)
    tell(c, run, S.RUNNING, started_at_ms=c.now_ms)
    return run


def test_an_urgent_job_runs_at_once_over_one_that_stands_still():
    c = alone(node(cpus=4, memory=16_000))
    [batch] = running(c, job("batch", cpus=4, memory=4000))
    commands = urgent(c, cpus=4, memory=4000)
    [pause] = sent(commands, m.Pause)
    assert pause.allocation == batch.allocation
    assert (pause.hold_ms, pause.at_once) == (35_000, False)
    assert sent(commands, (m.Run, m.Stop)) == [], "not before the other stands still"
    [run] = sent(tell(c, batch, S.PAUSED), m.Run)
    assert run.job.id == "urgent"
    assert phases(c) == {"batch": "running", "urgent": "starting"}
    assert status(c, "batch").reason == "paused for job urgent"
    c.machine.state.check()
    tell(c, run, S.RUNNING, started_at_ms=c.now_ms)
    beat(c, 3)
    [resume] = sent(tell(c, run, S.SUCCEEDED), m.Resume)
    assert resume.allocation == batch.allocation
    tell(c, batch, S.RUNNING)
    assert phases(c)["batch"] == "running"
    assert (status(c, "batch").reason, status(c, "batch").preemptions) == ("", 0)
    assert 3000 <= status(c, "batch").paused_ms < 3100
    c.machine.state.check()


def test_who_lacks_memory_or_gpus_stops_the_other_instead():
    for has, needs in (({"memory": 6000}, {"memory": 4000}), ({"gpus": 1}, {"gpus": 1})):
        c = alone(node(cpus=4, **has))
        running(c, job("batch", cpus=4, **needs))
        commands = urgent(c, cpus=4, **needs)
        assert sent(commands, m.Pause) == []
        assert len(sent(commands, m.Stop)) == 1


def test_a_job_that_forbids_it_or_a_node_that_cannot_is_stopped_instead():
    c = alone(node(cpus=4))
    running(c, job("batch", cpus=4, pausing=Pausing(forbidden=True)))
    assert len(sent(urgent(c, cpus=4), m.Stop)) == 1
    c = alone(plain_node(cpus=4))
    running(c, job("batch", cpus=4))
    assert len(sent(urgent(c, cpus=4), m.Stop)) == 1


def test_a_gang_stands_still_whole_or_goes_on():
    c = alone(node("n1", cpus=4), node("n2", cpus=4))
    prepares = sent(c.say(m.JobSubmitted(job=job("gang", cpus=4, replicas=2), token=1)), m.Prepare)
    runs = sent(say(c, prepares, S.READY, address="a", port=1), m.Run)
    say(c, runs, S.RUNNING, started_at_ms=c.now_ms)
    pauses = sent(urgent(c, cpus=4), m.Pause)
    assert len(pauses) == 2
    assert sent(tell(c, runs[0], S.PAUSED), m.Run) == [], "the other half still runs"
    commands = tell(c, runs[1], S.RUNNING, reason="its processes did not stand still")
    assert [x.allocation for x in sent(commands, m.Resume)] == [runs[0].allocation]
    commands += beat(c, 3)
    stopped = {x.allocation for x in sent(commands, m.Stop)}
    assert len(stopped) == 2, "it is stopped like any other then"


def test_an_order_that_nobody_answers_is_given_up():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    urgent(c, cpus=4)
    commands = beat(c, 4)
    assert {x.allocation for x in sent(commands, m.Resume)} == {batch.allocation}
    assert sent(commands, m.Run) == []


def test_another_stands_still_before_one_is_stopped_that_did_so_a_moment_ago():
    c = alone(node("n1", cpus=4), node("n2", cpus=4))
    batches = {x.allocation: x for x in running(c, job("a", cpus=4), job("b", cpus=4))}
    [first] = sent(urgent(c, "u1"), m.Pause)
    [run] = sent(tell(c, batches[first.allocation], S.PAUSED), m.Run)
    tell(c, run, S.RUNNING, started_at_ms=c.now_ms)
    beat(c, 1)
    tell(c, run, S.SUCCEEDED)
    tell(c, batches[first.allocation], S.RUNNING)
    commands = urgent(c, "u2")
    assert sent(commands, m.Stop) == []
    [second] = sent(commands, m.Pause)
    assert second.allocation != first.allocation
    commands = urgent(c, "u3")
    assert sent(commands, m.Stop) == sent(commands, m.Pause) == [], "it has just gone on"
    later = beat(c, 1)
    assert len(sent(later, m.Stop)) == 1, "it stood still for most of its time: nobody is left"


def test_of_a_miss_it_is_known_what_the_stragglers_did():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    urgent(c, cpus=4)
    c.now_ms += 70
    late = Freeze(stopped_us=90, how="freezer, degraded", stragglers=("12 D vm_munmap",))
    tell(c, batch, S.PAUSED, freeze=late)
    rows = {row.step: row for row in promise_views(c.machine.pausing.promise, "c1")}
    [miss] = rows["called → frozen (freezer, degraded)"].misses
    assert (miss.job, miss.took_ms, miss.stragglers) == ("urgent", 0, ("12 D vm_munmap",))
    [miss] = rows["ordered → free"].misses
    assert (miss.job, miss.took_ms >= 70) == ("urgent", True)
    from hyperion.cli.slo import _misses

    text = _misses(list(rows.values()))
    assert "c1/n1  for job urgent: never, freezer, degraded" in text
    assert "thread 12 D vm_munmap" in text


def test_nobody_else_gets_the_cpus_that_are_lent():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    run = paused(c, batch)
    assert sent(c.say(m.JobSubmitted(job=job("small", cpus=1), token=1)), m.Run) == []
    commands = tell(c, run, S.SUCCEEDED)
    assert len(sent(commands, m.Resume)) == 1
    assert sent(commands, m.Run) == [], "they go back to who has lent them"


def test_who_stands_still_for_too_long_is_stopped_and_waits():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, pausing=Pausing(hold_s=5.0)))
    paused(c, batch)
    assert sent(beat(c, 4), m.Stop) == []
    [stop] = sent(beat(c, 2), m.Stop)
    assert stop.allocation == batch.allocation
    c.machine.state.check()
    tell(c, batch, S.STOPPED)
    assert phases(c)["batch"] == "queued"
    assert status(c, "batch").preemptions == 1
    c.machine.state.check()


def test_a_restart_forgets_neither_who_stands_still_nor_for_whom():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    run = paused(c, batch)
    c.restart(machine)
    c.machine.state.check()
    c.say(m.NodeAttached(hello=m.NodeHello(node=node(cpus=4))))
    [resume] = sent(tell(c, run, S.SUCCEEDED), m.Resume)
    assert resume.allocation == batch.allocation


def test_the_most_urgent_lets_the_urgent_stand_still_too():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    run = paused(c, batch)
    beat(c)
    [pause] = sent(urgent(c, "hft", ULL, cpus=4), m.Pause)
    assert pause.allocation == run.allocation
    [first] = sent(tell(c, run, S.PAUSED), m.Run)
    tell(c, first, S.RUNNING, started_at_ms=c.now_ms)
    c.machine.state.check()
    assert [x.allocation for x in sent(tell(c, first, S.SUCCEEDED), m.Resume)] == [run.allocation]
    tell(c, run, S.RUNNING)
    assert [x.allocation for x in sent(tell(c, run, S.SUCCEEDED), m.Resume)] == [batch.allocation]


def test_one_that_ends_while_it_should_stand_still_makes_room_for_good():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    urgent(c, cpus=4)
    [run] = sent(tell(c, batch, S.SUCCEEDED), m.Run)
    assert run.job.id == "urgent"
    assert phases(c)["batch"] == "succeeded"
    c.machine.state.check()


def test_a_job_can_be_cancelled_while_it_stands_still():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, checkpoint=Checkpoint(grace_s=3.0)))
    run = paused(c, batch)
    [stop] = sent(c.say(m.JobCancelRequested(job="batch", token=2)), m.Stop)
    assert stop.grace_ms == 3000
    c.machine.state.check()
    tell(c, batch, S.STOPPED)
    assert phases(c)["batch"] == "cancelled"
    assert sent(tell(c, run, S.SUCCEEDED), m.Resume) == []
    c.machine.state.check()


def test_nobody_stands_still_more_than_half_of_the_time():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    run = paused(c, batch)
    beat(c, 5)
    tell(c, run, S.SUCCEEDED)
    tell(c, batch, S.RUNNING)
    beat(c)
    commands = urgent(c, "again", cpus=4)
    assert sent(commands, m.Pause) == []
    assert len(sent(commands, m.Stop)) == 1


def test_whoever_stood_still_for_one_that_is_gone_waits_for_the_one_in_its_place():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    run = paused(c, batch)
    beat(c)
    urgent(c, "hft", ULL, cpus=4)
    [first] = sent(tell(c, run, S.PAUSED), m.Run)
    tell(c, first, S.RUNNING, started_at_ms=c.now_ms)
    c.say(m.JobCancelRequested(job="urgent", token=2))
    assert sent(tell(c, run, S.STOPPED), m.Resume) == []
    assert status(c, "batch").reason == "paused for job hft"
    c.machine.state.check()
    assert [x.allocation for x in sent(tell(c, first, S.SUCCEEDED), m.Resume)] == [batch.allocation]


def test_who_asks_before_submitting_is_told_who_would_stand_still():
    c = alone(node(cpus=4))
    running(c, job("batch", cpus=4))
    told = c.machine.prospects.trial(job("urgent", priority=LC, cpus=4), c.now_ms)
    assert (told.pauses, told.preempts, told.starts_at_ms) == (("batch",), (), c.now_ms)
    assert phases(c) == {"batch": "running"}, "asking changes nothing"


def test_who_stands_still_for_nobody_goes_on():
    """Its agent found it so after a restart; the order is long taken back."""
    c = alone(node())
    [batch] = running(c, job("batch"))
    [resume] = sent(tell(c, batch, S.PAUSED), m.Resume)
    assert resume.allocation == batch.allocation
    tell(c, batch, S.RUNNING)
    assert phases(c) == {"batch": "running"}
    c.machine.state.check()


def test_an_order_that_was_sent_and_not_kept_is_taken_back():
    """It left before it was on the disk, and its scheduler died right then."""
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    disk = dict(c.disk)
    [pause] = sent(urgent(c, cpus=4), m.Pause)
    c.disk = disk
    c.restart(machine)
    report = m.AllocationReport(
        allocation=batch.allocation, generation=pause.generation, state=S.PAUSED
    )
    c.say(m.NodeAttached(hello=m.NodeHello(node=node(cpus=4), allocations=(report,))))
    [resume] = [x for x in sent(c.commands, m.Resume) if x.allocation == batch.allocation]
    assert resume.generation > pause.generation
    tell(c, batch, S.RUNNING)
    c.machine.state.check()
    [again] = sent(urgent(c, "other", cpus=4), m.Pause)
    assert again.generation > resume.generation


def test_what_stands_still_by_a_forgotten_order_can_be_stopped():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    disk = dict(c.disk)
    [pause] = sent(urgent(c, cpus=4), m.Pause)
    c.disk = disk
    c.restart(machine)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node(cpus=4))))
    [stop] = sent(c.say(m.JobCancelRequested(job="batch", token=1)), m.Stop)
    assert stop.generation == pause.generation
    a = leased()
    a.say(run(id=batch.allocation))
    a.say(m.ReplicaStarted(allocation=batch.allocation, pid=7, started_at_ms=5))
    a.say(pause, m.ReplicaPaused(batch.allocation))
    assert names(a.say(stop))[-1] == "KillReplica"


def test_an_agent_that_dies_over_the_order_does_not_cost_its_job_a_restart():
    c = alone(node("n1", cpus=4))
    [batch] = running(c, job("batch", cpus=4))
    assert len(sent(urgent(c, cpus=4), m.Pause)) == 1
    later = [*c.say(m.NodeDetached(node="n1")), *c.wait(2000, step_ms=250)]
    assert sent(later, m.Stop) == sent(later, m.Pause) == [], "nothing can be asked of it"
    a = c.machine.state.allocations[batch.allocation]
    before = m.AllocationReport(allocation=a.id, generation=1, state=S.RUNNING)
    hello = m.NodeHello(node=node("n1", cpus=4), allocations=(before,))
    back = [*c.say(m.NodeAttached(hello=hello)), *beat(c, 1)]
    assert sent(back, m.Stop) == []
    assert len(sent(back, m.Pause)) >= 1, "it is asked again"


def test_an_urgent_job_looks_elsewhere_when_the_agent_that_was_asked_has_gone():
    c = alone(node("n1", cpus=4), node("n2", cpus=4))
    running(c, job("a", cpus=4), job("b", cpus=4))
    [first] = sent(urgent(c, cpus=4), m.Pause)
    asked = c.machine.state.allocations[first.allocation].node
    later = [*c.say(m.NodeDetached(node=asked)), *c.wait(300, step_ms=100)]
    assert sent(later, m.Stop) == []
    [second] = sent(later, m.Pause)
    assert c.machine.state.allocations[second.allocation].node != asked


def test_who_gives_no_sign_is_asked_twice_and_then_stopped():
    c = alone(node("n1", cpus=4))
    running(c, job("batch", cpus=4))
    beat(c, 5)
    assert len(sent(urgent(c, cpus=4), m.Pause)) == 1
    first = c.wait(1000, step_ms=100)
    assert sent(first, m.Stop) == []
    asked = [p.generation for p in sent(first, m.Pause)]
    assert len(set(asked)) == 1, "an order of its own, whoever heard the one before"
    assert len(sent(c.wait(1500, step_ms=100), m.Stop)) >= 1


AT_STEP = Pausing(at="step", within_s=3.0, hold_s=5.0)


def test_one_that_comes_to_its_step_by_itself_has_its_time_for_that():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, pausing=AT_STEP))
    assert len(sent(urgent(c, cpus=4), m.Pause)) == 1
    assert sent(beat(c, 2), (m.Run, m.Stop, m.Resume)) == [], "it is on its way"
    stands = Freeze(stopped_us=2_000_000, confirmed_us=2_000_000, how="step", at="step", step=41)
    [run] = sent(tell(c, batch, S.PAUSED, freeze=stands), m.Run)
    assert run.job.id == "urgent"
    rows = {row.step: row for row in promise_views(c.machine.pausing.promise, "c1")}
    assert rows["ordered → free"].missed == 0, "nobody has promised 50 ms of it"
    assert rows["called → frozen (step)"].misses == ()


def test_what_became_of_memory_and_work_is_told_after_the_cpus_are_free():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, pausing=AT_STEP))
    urgent(c, cpus=4)
    stands = Freeze(stopped_us=900, confirmed_us=900, how="step", at="step", step=41)
    tell(c, batch, S.PAUSED, freeze=stands)
    assert status(c, "batch").reason == "paused for job urgent"
    for _ in range(2):  # reports come again
        tell(c, batch, S.PAUSED, freeze=replace(stands, saved_us=9000, freed_bytes=12 << 20))
    said = "paused for job urgent; step 41 is saved; 12 MiB given back"
    assert status(c, "batch").reason == said
    rows = {row.step: row for row in promise_views(c.machine.pausing.promise, "c1")}
    assert rows["called → saved (step)"].took.count == 1
    assert rows["called → saved (step)"].took.max == 9.0


def test_a_step_of_a_gang_is_saved_where_all_ranks_have_saved_it():
    c = alone(node(cpus=4))
    ranks = running(c, job("gang", cpus=2, replicas=2, pausing=AT_STEP))
    assert len(sent(urgent(c, cpus=4), m.Pause)) == 2
    stands = Freeze(stopped_us=900, confirmed_us=900, how="step", at="step", step=41)
    say(c, ranks, S.PAUSED, freeze=stands)
    wrote = replace(stands, saved_us=9000, freed_bytes=12 << 20)
    rank, other = ranks
    tell(c, rank, S.PAUSED, freeze=wrote)
    assert status(c, "gang").reason == "paused for job urgent; 12 MiB given back"
    tell(c, other, S.PAUSED, freeze=replace(wrote, freed_bytes=3 << 20))
    version = status(c, "gang").version
    assert status(c, "gang").reason == "paused for job urgent; step 41 is saved; 15 MiB given back"
    for _ in range(3):  # reports come again, as long as it stands
        tell(c, rank, S.PAUSED, freeze=wrote)
        tell(c, other, S.PAUSED, freeze=replace(wrote, freed_bytes=3 << 20))
    assert status(c, "gang").version == version, "nothing new"
    rows = {row.step: row for row in promise_views(c.machine.pausing.promise, "c1")}
    assert rows["called → saved (step)"].took.count == 2, "once a rank"


def test_of_two_alike_the_one_that_stands_still_at_once_makes_room():
    for order in (("slow", "quick"), ("quick", "slow")):
        c = alone(node("n1", cpus=4), node("n2", cpus=4))
        jobs = [job(name, pausing=AT_STEP if name == "slow" else Pausing()) for name in order]
        by = {x.allocation: x.job.id for x in running(c, *jobs)}
        [pause] = sent(urgent(c, cpus=4), m.Pause)
        assert by[pause.allocation] == "quick"


def test_one_whose_step_is_saved_is_said_to_lose_nothing_at_the_end_of_its_hold():
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, pausing=AT_STEP))
    urgent(c, cpus=4)
    tell(c, batch, S.PAUSED)
    written = SavedCheckpoint(41, "/ck/41", at_ms=c.now_ms, size_bytes=9)
    tell(c, batch, S.PAUSED, checkpoints=(written,))
    [stop] = sent(beat(c, 7), m.Stop)
    assert stop.allocation == batch.allocation
    said = "preempted by job urgent, after it had stood still for 5s; step 41 is saved"
    assert status(c, "batch").reason == said


def lies_aside(c, **more):
    """A job that has been told at the end of its hold to lie aside on disk; (it, who runs)."""
    [batch] = running(c, job("batch", cpus=4, pausing=Pausing(hold_s=5.0, criu=True), **more))
    run = paused(c, batch)
    commands = beat(c, 6)
    assert sent(commands, m.Stop) == []
    [aside] = sent(commands, m.Pause)
    assert (aside.allocation, aside.on_disk) == (batch.allocation, True)
    return batch, run


def criu_node(**has):
    return replace(node(**has), abilities={PAUSE: "tested", CRIU: "4.1"})


def test_at_the_end_of_its_hold_it_is_set_aside_and_waits_there():
    c = alone(criu_node(cpus=4))
    batch, run = lies_aside(c)
    tell(c, batch, S.PAUSED, freeze=Freeze(how="disk", at="disk", freed_bytes=300 << 20))
    said = "paused for job urgent; set aside on disk; 300 MiB given back"
    assert status(c, "batch").reason == said
    assert sent(beat(c, 100), (m.Stop, m.Pause, m.Resume)) == [], "for as long as it takes"
    c.machine.state.check()
    [resume] = sent(tell(c, run, S.SUCCEEDED), m.Resume)
    assert resume.allocation == batch.allocation
    tell(c, batch, S.RUNNING)
    assert (status(c, "batch").preemptions, status(c, "batch").reason) == (0, "")
    assert not c.machine.state.allocations[batch.allocation].on_disk


def test_one_that_cannot_be_set_aside_is_stopped():
    c = alone(criu_node(cpus=4))
    batch, _ = lies_aside(c)
    tell(c, batch, S.RUNNING, reason="it could not be set aside on disk: connected sockets")
    [stop] = sent(beat(c, 2), m.Stop)
    assert stop.allocation == batch.allocation
    c = alone(node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, pausing=Pausing(hold_s=5.0, criu=True)))
    paused(c, batch)
    assert len(sent(beat(c, 7), m.Stop)) == 1, "its node cannot"


def test_who_would_not_lie_aside_is_frozen_as_ever_the_next_time():
    c = alone(criu_node(cpus=4))
    batch, run = lies_aside(c)
    tell(c, batch, S.RUNNING, reason="it could not be set aside on disk: connected sockets")
    tell(c, run, S.SUCCEEDED)  # before anybody has stopped the other for it
    assert status(c, "batch").reason == ""
    beat(c, 60)
    [pause] = sent(urgent(c, "later", cpus=4), m.Pause)
    assert (pause.allocation, pause.on_disk) == (batch.allocation, False)


def test_who_was_set_aside_by_a_forgotten_order_stays_there():
    c = alone(criu_node(cpus=4))
    [batch] = running(c, job("batch", cpus=4, pausing=Pausing(hold_s=5.0, criu=True)))
    run = paused(c, batch)
    disk = dict(c.disk)
    [aside] = sent(beat(c, 6), m.Pause)
    c.disk = disk
    c.restart(machine)
    c.say(m.NodeAttached(hello=m.NodeHello(node=criu_node(cpus=4))))
    report = m.AllocationReport(
        allocation=batch.allocation,
        generation=aside.generation,
        state=S.PAUSED,
        freeze=Freeze(how="disk", at="disk"),
    )
    later = [*c.say(m.NodeReported(node="n1", report=report)), *beat(c, 2)]
    assert sent(later, (m.Resume, m.Stop)) == [], "somebody runs on its CPUs"
    again = sent(later, m.Pause)[-1]
    assert again.on_disk
    assert again.generation > aside.generation
    tell(c, batch, S.PAUSED, freeze=Freeze(how="disk", at="disk"))
    tell(c, run, S.RUNNING, started_at_ms=c.now_ms)
    assert sent(tell(c, run, S.SUCCEEDED), m.Resume)[0].allocation == batch.allocation


def test_a_restart_does_not_forget_what_lies_aside():
    c = alone(criu_node(cpus=4))
    batch, run = lies_aside(c)
    tell(c, batch, S.PAUSED, freeze=Freeze(how="disk", at="disk"))
    c.restart(machine)
    c.say(m.NodeAttached(hello=m.NodeHello(node=criu_node(cpus=4))))
    tell(c, run, S.RUNNING, started_at_ms=c.now_ms)
    tell(c, batch, S.PAUSED)
    assert sent(beat(c, 20), (m.Stop, m.Pause)) == []
