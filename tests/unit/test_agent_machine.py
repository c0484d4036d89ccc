"""Stories about the node agent."""

from msgspec.structs import replace
from stories import agent, job, names, node, sent

from hyperion.control import messages as m
from hyperion.control.agent import Agent
from hyperion.model.allocation import AllocationState as S
from hyperion.model.allocation import Freeze
from hyperion.model.job import Pausing
from hyperion.model.resources import ResourceRequest


def run(generation=1, known=False, id="train.1-1.0", **more):
    return m.Run(
        allocation=id,
        generation=generation,
        job=job(**more),
        rank=0,
        attempt=1,
        request=ResourceRequest(),
        known=known,
    )


def leased():
    a = agent()
    a.say(m.SchedulerAttached(), m.Lease(sequence=0, duration_ms=30_000))
    return a


def test_greets_its_scheduler_with_all_it_holds():
    a = agent()
    [hello] = sent(a.say(m.SchedulerAttached()), m.NodeHello)
    assert hello.node.id == "n1"
    assert hello.allocations == ()


def test_runs_nothing_before_it_has_a_lease():
    a = agent()
    a.say(m.SchedulerAttached())
    assert a.say(run()) == []


def test_runs_a_replica_to_its_end_and_forgets_it_when_told():
    a = leased()
    assert names(a.say(run())) == ["LaunchReplica"]
    [report] = sent(a.say(m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5)))
    assert (report.state, report.generation, report.started_at_ms) == (S.RUNNING, 1, 5)
    exited = m.ReplicaExited(allocation="train.1-1.0", exit_code=0, by_itself=True)
    [report] = sent(a.say(exited))
    assert (report.state, report.exit_code) == (S.SUCCEEDED, 0)
    assert names(a.say(m.Forget(allocation="train.1-1.0", generation=1))) == ["DropReplica"]
    assert a.machine.replicas == {}
    assert a.say(run()) == [], "an order that its end has overtaken starts nothing"


def test_an_end_is_reported_until_it_is_acknowledged():
    a = leased()
    a.say(run(), m.ReplicaExited(allocation="train.1-1.0", exit_code=3, by_itself=True))
    again = sent(a.wait(5000), m.AllocationReport)
    assert len(again) >= 2
    assert {x.state for x in again} == {S.FAILED}


def test_a_doubled_order_launches_once():
    a = leased()
    commands = a.say(run(), run())
    assert names(commands).count("LaunchReplica") == 1


def test_a_stop_that_overtakes_its_run_prevents_it():
    a = leased()
    [report] = sent(a.say(m.Stop(allocation="train.1-1.0", generation=2)))
    assert report.state is S.STOPPED
    commands = a.say(run(generation=1))
    assert "LaunchReplica" not in names(commands)


def test_stop_kills_and_reports_stopped():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    [kill] = a.say(m.Stop(allocation="train.1-1.0", generation=2, grace_ms=500))
    assert kill == m.KillReplica("train.1-1.0", 500)
    [report] = sent(a.say(m.ReplicaExited(allocation="train.1-1.0", exit_code=143)))
    assert (report.state, report.generation) == (S.STOPPED, 2)


def test_success_that_was_there_before_the_stop_is_a_success():
    a = leased()
    a.say(run(), m.Stop(allocation="train.1-1.0", generation=2))
    exited = m.ReplicaExited(allocation="train.1-1.0", exit_code=0, by_itself=True)
    [report] = sent(a.say(exited))
    assert report.state is S.SUCCEEDED


def test_vanished_processes_are_a_loss_and_not_a_failure():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    [report] = sent(a.say(m.ReplicaExited(allocation="train.1-1.0")))
    assert report.state is S.LOST


def test_fences_itself_before_the_lease_ends():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    commands = a.wait(26_000)
    assert "KillReplica" not in names(commands)
    assert names(a.wait(1500)).count("KillReplica") == 1
    [report] = sent(a.say(m.ReplicaExited(allocation="train.1-1.0")), m.AllocationReport)
    assert report.state is S.LOST
    assert a.say(run(id="train.1-2.0")) == [], "without a lease nothing new starts"


def test_a_lease_shorter_than_the_margin_for_fencing_still_lets_replicas_run():
    a = agent()
    a.say(m.SchedulerAttached(), m.Lease(sequence=0, duration_ms=2400))
    assert names(a.say(run())) == ["LaunchReplica"]
    a.say(m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    assert "KillReplica" not in names(a.wait(1500, step_ms=50))
    [kill] = [c for c in a.wait(200, step_ms=50) if isinstance(c, m.KillReplica)]
    assert kill.grace_ms <= 400, "its grace ends before the lease"


def test_a_short_lease_recovered_after_a_restart_keeps_its_replicas():
    a = agent()
    a.say(m.SchedulerAttached(), m.Lease(sequence=0, duration_ms=3000), run())
    a.say(m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))

    def again():
        machine = Agent(node())
        machine.handle(m.LeaseRecovered(remaining_ms=2500), a.now_ms)
        return machine

    assert names(a.restart(again)) == ["LaunchReplica", "InspectReplica"]
    assert "KillReplica" not in names(a.wait(1500, step_ms=50))


def test_a_lease_counts_from_when_the_heartbeat_was_sent():
    a = leased()
    beat = list(sent(a.wait(3000), m.NodeHeartbeat))[-1]
    before = a.machine.lease.until_ms
    a.wait(4000)
    a.say(m.Lease(sequence=beat.sequence, duration_ms=30_000))
    assert before < a.machine.lease.until_ms < a.now_ms + 27_000
    a.say(m.Lease(sequence=9999, duration_ms=10**9))
    assert a.machine.lease.until_ms < a.now_ms + 27_000, "an answer to nothing sent is void"


def test_it_asks_for_a_new_lease_once_a_third_of_the_old_one_is_gone_and_until_it_comes():
    a = leased()
    beats = list(sent(a.wait(8_500), m.NodeHeartbeat))
    assert len(beats) == 8
    assert all(beat.fresh for beat in beats)
    a.wait(2_000)
    late = list(sent(a.wait(5_000), m.NodeHeartbeat))
    assert len(late) == 5
    assert not any(beat.fresh for beat in late), "a lost answer is asked for again each second"
    a.say(m.Lease(sequence=late[-1].sequence, duration_ms=30_000))
    assert all(beat.fresh for beat in sent(a.wait(5_000), m.NodeHeartbeat))


def test_a_short_lease_is_renewed_by_every_heartbeat():
    a = agent()
    a.say(m.SchedulerAttached(), m.Lease(sequence=0, duration_ms=3000))
    for _ in range(5):
        [beat] = sent(a.wait(1000), m.NodeHeartbeat)
        assert not beat.fresh
        a.say(m.Lease(sequence=beat.sequence, duration_ms=3000))
        assert a.machine.lease.until_ms >= a.now_ms + 2990


def test_after_a_restart_it_takes_up_what_ran():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))

    def again():
        machine = Agent(node())
        machine.handle(m.LeaseRecovered(remaining_ms=20_000), a.now_ms)
        return machine

    command, _ = a.restart(again)
    assert isinstance(command, m.LaunchReplica)


def test_after_a_restart_without_lease_it_kills_what_ran():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    commands = a.restart(lambda: Agent(node()))
    assert set(names(commands)) == {"KillReplica"}


def test_an_order_it_should_know_but_does_not_is_a_loss():
    a = leased()
    [report] = sent(a.say(run(known=True)))
    assert report.state is S.LOST


def test_a_gang_member_prepares_first():
    a = leased()
    order = m.Prepare(
        allocation="g.1-1.1",
        generation=1,
        job=job("g", replicas=2),
        rank=1,
        attempt=1,
        request=ResourceRequest(),
    )
    assert names(a.say(order)) == ["PrepareReplica"]
    ready = m.ReplicaPrepared(allocation="g.1-1.1", address="10.0.0.1", port=4000)
    [report] = sent(a.say(ready))
    assert (report.state, report.address, report.port) == (S.READY, "10.0.0.1", 4000)
    commands = a.say(run(generation=2, id="g.1-1.1"))
    assert names(commands) == ["LaunchReplica"]


ID = "train.1-1.0"


def started(**more):
    a = leased()
    a.say(run(**more), m.ReplicaStarted(allocation=ID, pid=7, started_at_ms=5))
    return a


def stands(a):
    """Its state, generation and start, as it was last reported."""
    [replica] = a.machine.replicas.values()
    return replica.state, replica.generation, replica.started_at_ms


def test_a_replica_stands_still_and_goes_on():
    a = started()
    assert a.say(m.Pause(ID, 2, 35_000)) == [m.PauseReplica(ID, 35_000)]
    [report] = sent(a.say(m.ReplicaPaused(ID)))
    assert (report.state, report.generation) == (S.PAUSED, 2)
    assert a.say(m.Resume(ID, 3)) == [m.ResumeReplica(ID)]
    [report] = sent(a.say(m.ReplicaResumed(ID)))
    assert (report.state, report.generation, report.started_at_ms) == (S.RUNNING, 3, 5)


def test_what_cannot_stand_still_says_so_and_runs_on():
    a = started()
    a.say(m.Pause(ID, 2, 35_000))
    [report] = sent(a.say(m.ReplicaResumed(ID, "no right to freeze it")))
    assert (report.state, report.generation, report.reason) == (
        S.RUNNING,
        2,
        "no right to freeze it",
    )
    [report] = sent(a.say(m.Pause(ID, 2, 35_000)), m.AllocationReport)
    assert report.state is S.RUNNING, "the order has been answered"


def test_orders_to_stand_still_that_come_doubled_or_too_late_change_nothing():
    a = started()
    assert names(a.say(m.Resume(ID, 3))) == ["AllocationReport"]
    assert names(a.say(m.Pause(ID, 2, 35_000))) == ["AllocationReport"]
    assert stands(a) == (S.RUNNING, 3, 5)
    a.say(m.Pause(ID, 4, 35_000), m.ReplicaPaused(ID))
    assert names(a.say(m.Pause(ID, 4, 35_000))) == ["AllocationReport"]
    a.say(m.ReplicaExited(allocation=ID, exit_code=0, by_itself=True))
    [report] = sent(a.say(m.Pause(ID, 5, 35_000)), m.AllocationReport)
    assert (report.state, report.generation) == (S.SUCCEEDED, 5)


def test_a_freeze_that_comes_true_after_its_order_is_void_is_undone():
    a = started()
    a.say(m.Pause(ID, 2, 35_000), m.ReplicaResumed(ID, "the agent was started anew"))
    assert a.say(m.ReplicaPaused(ID)) == [m.ResumeReplica(ID)]


def test_what_is_left_to_tell_of_one_that_stands_by_itself_comes_after():
    a = started(pausing=Pausing(at="step", within_s=2.0))
    [asked] = a.say(m.Pause(ID, 2, 35_000))
    assert asked == m.PauseReplica(ID, 35_000, "step", 2000)
    stands = Freeze(stopped_us=9, confirmed_us=9, how="step", at="step", step=4)
    settled = m.ReplicaSettled(ID, replace(stands, saved_us=90))
    assert a.say(settled) == [], "nothing of it is known yet"
    [report] = sent(a.say(m.ReplicaPaused(ID, stands)))
    assert (report.state, report.freeze.saved_us) == (S.PAUSED, 0)
    [report] = sent(a.say(settled))
    assert (report.state, report.generation, report.freeze.saved_us) == (S.PAUSED, 2, 90)
    a.say(m.Resume(ID, 3), m.ReplicaResumed(ID), m.Pause(ID, 4, 35_000))
    assert a.say(settled) == [], "it was said of an earlier pause"
    assert a.machine.replicas[ID].state is S.RUNNING


def test_for_a_standby_it_is_frozen_wherever_it_is():
    a = started(pausing=Pausing(at="step"))
    assert a.say(m.Pause(ID, 2, 35_000, at_once=True)) == [m.PauseReplica(ID, 35_000)]


def test_what_stands_still_may_be_set_aside_and_comes_back():
    a = started()
    a.say(m.Pause(ID, 2, 35_000), m.ReplicaPaused(ID))
    [aside] = a.say(m.Pause(ID, 3, 35_000, on_disk=True))
    assert aside == m.PauseReplica(ID, 35_000, on_disk=True)
    [report] = sent(a.say(m.ReplicaPaused(ID, Freeze(how="disk", at="disk", freed_bytes=9))))
    assert (report.state, report.generation, report.freeze.freed_bytes) == (S.PAUSED, 3, 9)
    assert a.say(m.Resume(ID, 4)) == [m.ResumeReplica(ID)]


def test_an_order_about_what_is_lost_is_answered_so():
    a = leased()
    [report] = sent(a.say(m.Pause(ID, 2, 35_000)), m.AllocationReport)
    assert (report.state, report.generation) == (S.LOST, 2)


def test_word_that_it_stands_still_waits_for_no_disk():
    a = started()
    a.say(m.Pause(ID, 2, 35_000))
    outcome = a.machine.handle(m.ReplicaPaused(ID), a.now_ms)
    assert [command.message.state for command in outcome.early] == [S.PAUSED]
    assert outcome.commands == []


def test_after_a_restart_it_looks_who_stands_still():
    a = started()
    a.say(m.Pause(ID, 2, 35_000), m.ReplicaPaused(ID))

    def again():
        machine = Agent(node())
        machine.handle(m.LeaseRecovered(20_000), a.now_ms)
        return machine

    assert names(a.restart(again)) == ["LaunchReplica", "InspectReplica"]
    a.say(m.ReplicaStarted(allocation=ID, pid=7, started_at_ms=9), m.ReplicaPaused(ID))
    assert stands(a) == (S.PAUSED, 2, 5)
    a.say(m.ReplicaResumed(ID, "its hold has ended"))
    assert stands(a) == (S.RUNNING, 2, 5)


def test_what_stands_still_is_fenced_like_anything_else():
    a = started()
    a.say(m.Pause(ID, 2, 35_000), m.ReplicaPaused(ID))
    assert "KillReplica" in names(a.wait(31_000))


def test_who_stands_still_by_an_order_that_was_lost_does_so_until_its_scheduler_says():
    """Its report may have left before the disk had it, and somebody run on its CPUs since."""
    a = started()
    kept = dict(a.disk)
    a.say(m.Pause(ID, 2, 35_000), m.ReplicaPaused(ID))
    a.disk = kept

    def again():
        machine = Agent(node())
        machine.handle(m.LeaseRecovered(20_000), a.now_ms)
        return machine

    a.restart(again)
    a.say(m.SchedulerAttached())
    assert a.machine.replicas[ID].state is S.RUNNING
    [report] = sent(a.say(m.ReplicaPaused(ID)))
    assert (report.state, report.generation) == (S.PAUSED, 1)
    assert names(a.say(m.Pause(ID, 2, 35_000))) == ["PauseReplica"]
    [report] = sent(a.say(m.ReplicaPaused(ID)))
    assert (report.state, report.generation) == (S.PAUSED, 2)
    assert a.say(m.Resume(ID, 3)) == [m.ResumeReplica(ID)]


def standby(a, victim=True):
    """A standby that waits to be wanted, and one who borrows its CPUs."""
    for id in ("serve.1-1.0", "batch.1-1.0")[: 2 if victim else 1]:
        a.say(run(id=id), m.ReplicaStarted(allocation=id, pid=7, started_at_ms=5))
    [report] = sent(a.say(m.ReplicaWarm("serve.1-1.0")))
    assert (report.state, report.turn) == (S.WARM, 1)


def test_a_guard_is_handed_on_to_whoever_acts_on_it():
    a = leased()
    standby(a)
    guard = m.Guard("serve.1-1.0", (m.Yielding("batch.1-1.0", 5000),))
    assert sent(a.say(guard)) == []
    assert names(a.say(guard)) == ["GuardReplica"]
    assert a.say(m.Guard("unknown.1-1.0")) == []


def test_what_a_standby_has_done_is_told_afterwards():
    a = leased()
    standby(a)
    reports = sent(a.say(m.ReplicaActivated("serve.1-1.0", ("batch.1-1.0",))))
    assert [(x.allocation, x.state, x.turn) for x in reports] == [
        ("serve.1-1.0", S.RUNNING, 2),
        ("batch.1-1.0", S.PAUSED, 1),
    ]
    assert reports[1].stands_for == "serve.1-1.0"
    [report] = sent(a.say(m.ReplicaWarm("serve.1-1.0")))
    assert (report.state, report.turn) == (S.WARM, 3)


def test_nobody_stands_still_for_a_standby_that_is_gone():
    a = leased()
    standby(a)
    a.say(m.ReplicaExited(allocation="serve.1-1.0", exit_code=0, by_itself=True))
    commands = a.say(m.ReplicaActivated("serve.1-1.0", ("batch.1-1.0",)))
    assert names(commands) == ["ResumeReplica"]


def test_without_a_scheduler_the_node_lets_them_go_on_itself():
    for ending in (
        m.ReplicaWarm("serve.1-1.0"),
        m.ReplicaExited(allocation="serve.1-1.0", exit_code=0, by_itself=True),
    ):
        a = leased()
        standby(a)
        a.say(m.ReplicaActivated("serve.1-1.0", ("batch.1-1.0",)))
        assert "ResumeReplica" not in names(a.say(ending)), "its scheduler says so"
        a = leased()
        standby(a)
        a.say(m.ReplicaActivated("serve.1-1.0", ("batch.1-1.0",)), m.SchedulerDetached())
        [resume] = [x for x in a.say(ending) if isinstance(x, m.ResumeReplica)]
        assert resume.allocation == "batch.1-1.0"


def test_an_order_to_go_on_frees_it_from_the_standby():
    a = leased()
    standby(a)
    a.say(m.ReplicaActivated("serve.1-1.0", ("batch.1-1.0",)))
    commands = a.say(m.Resume(allocation="batch.1-1.0", generation=2))
    assert names(commands) == ["ResumeReplica"]
    [report] = sent(a.say(m.ReplicaResumed("batch.1-1.0")))
    assert (report.state, report.turn, report.stands_for) == (S.RUNNING, 1, "")


def test_one_that_ends_while_it_is_to_stand_still_has_ended():
    a = leased()
    a.say(run(), m.ReplicaStarted(allocation="train.1-1.0", pid=7, started_at_ms=5))
    a.say(m.Pause(allocation="train.1-1.0", generation=2, hold_ms=1000))
    exited = m.ReplicaExited(allocation="train.1-1.0", exit_code=0, by_itself=True)
    [report] = sent(a.say(exited))
    assert (report.state, report.generation) == (S.SUCCEEDED, 2)
    [report] = sent(a.say(m.Resume(allocation="train.1-1.0", generation=3)))
    assert (report.state, report.generation) == (S.SUCCEEDED, 3)
