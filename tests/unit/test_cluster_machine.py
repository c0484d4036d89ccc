"""Stories about the cluster scheduler."""

from stories import Teller, cluster, job, node, sent

from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.uplink import ClusterTimes
from hyperion.model.allocation import AllocationState as S
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.model.job import Checkpoint, Elastic, Priority, Restart, Secret
from hyperion.model.job import JobPhase as P
from hyperion.placement import ranking


def attached(*nodes):
    """A cluster whose federation has granted a lease, with its nodes."""
    c = cluster()
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=300_000))
    for n in nodes or (node(),):
        c.say(m.NodeAttached(hello=m.NodeHello(node=n)))
    return c


def place(generation=1, **more):
    return m.PlaceJob(job=job(**more), generation=generation, submitted_at_ms=1)


def replies(c, order, state, node_id="n1", **facts):
    report = m.AllocationReport(
        allocation=order.allocation, generation=order.generation, state=state, **facts
    )
    return c.say(m.NodeReported(node=node_id, report=report))


def test_a_job_is_run_reported_and_forgotten():
    c = attached()
    [run] = sent(c.say(place()), m.Run)
    assert run.devices == (0,)
    [report] = sent(replies(c, run, S.RUNNING, started_at_ms=7), m.JobReport)
    assert (report.phase, report.started_at_ms) == (P.RUNNING, 7)
    commands = replies(c, run, S.SUCCEEDED, exit_code=0)
    assert [x.phase for x in sent(commands, m.JobReport)] == [P.SUCCEEDED]
    assert sent(commands, m.Forget)
    c.say(m.ForgetJob(job="train", generation=1))
    assert c.machine.state.jobs == {}
    [report] = sent(c.say(place()))
    assert report.lost, "an order that its end has overtaken starts nothing"


def test_the_federation_hears_soon_of_another_width():
    c = attached(node(cpus=2))
    elastic = Elastic(min=1, restart=False)
    prepares = sent(c.say(place(gpus=0, replicas=2, elastic=elastic)), m.Prepare)
    answers = [replies(c, p, S.READY, address="a", port=1) for p in prepares]
    for run in sent(answers[-1], m.Run):
        replies(c, run, S.RUNNING)
    c.wait(1000, step_ms=250)
    urgent = job("urgent", gpus=0, priority=Priority.LATENCY_CRITICAL)
    c.say(m.PlaceJob(job=urgent, generation=1, submitted_at_ms=1))
    reports = sent(c.wait(1000, step_ms=250), m.JobReport)
    assert [r.width for r in reports if r.job == "train"] == [1]


def test_a_doubled_order_is_one_job():
    c = attached()
    assert len(sent(c.say(place(), place()), m.Run)) == 1


def test_an_answer_to_an_old_order_changes_nothing():
    c = attached()
    [run] = sent(c.say(place()), m.Run)
    [stop] = sent(c.say(m.StopJob(job="train", generation=2, phase=P.CANCELLED)), m.Stop)
    assert replies(c, run, S.RUNNING) == []
    assert c.machine.state.allocations[run.allocation].state is S.STOPPING
    commands = replies(c, stop, S.STOPPED)
    assert [x.phase for x in sent(commands, m.JobReport)] == [P.CANCELLED]


def test_a_stop_that_overtakes_its_order_prevents_it():
    c = attached()
    [report] = sent(c.say(m.StopJob(job="train", generation=2, phase=P.CANCELLED)))
    assert (report.phase, report.generation) == (P.CANCELLED, 2)
    assert sent(c.say(place(generation=1)), m.Run) == []


def test_a_gang_prepares_everywhere_then_runs_together():
    c = attached(node("n1", cpus=1), node("n2", cpus=1))
    prepares = sent(c.say(place(replicas=2)), m.Prepare)
    assert [x.rank for x in prepares] == [0, 1]
    on = {a.id: a.node for a in c.machine.state.allocations.values()}
    first, second = prepares
    assert replies(c, first, S.READY, on[first.allocation], address="a", port=1) == []
    runs = sent(replies(c, second, S.READY, on[second.allocation], address="b", port=2), m.Run)
    assert len(runs) == 2
    assert [(p.rank, p.address, p.port) for p in runs[0].peers] == [(0, "a", 1), (1, "b", 2)]


def test_a_gang_is_placed_whole_or_not_at_all():
    c = attached(node("n1", cpus=1), node("n2", cpus=1))
    assert sent(c.say(place(replicas=3)), m.Prepare) == []
    assert not c.machine.state.allocations


def test_when_one_of_a_gang_fails_the_rest_is_stopped_and_the_job_has_failed():
    c = attached()
    prepares = sent(c.say(place(replicas=2)), m.Prepare)
    runs = [x for p in prepares for x in sent(replies(c, p, S.READY), m.Run)]
    for run in runs:
        replies(c, run, S.RUNNING)
    commands = replies(c, runs[1], S.FAILED, exit_code=9)
    [stop] = sent(commands, m.Stop)
    assert stop.allocation == runs[0].allocation
    [report] = sent(replies(c, stop, S.STOPPED), m.JobReport)
    assert (report.phase, report.exit_code) == (P.FAILED, 9)
    assert "rank 1 on n1: exit code 9" in report.reason


def test_a_failed_job_is_tried_again_after_its_backoff():
    c = attached()
    [run] = sent(c.say(place(restart=Restart(max=1, backoff_s=5))), m.Run)
    assert sent(replies(c, run, S.FAILED, exit_code=1), m.Run) == []
    assert sent(c.wait(4000), m.Run) == []
    [again] = sent(c.wait(2000), m.Run)
    assert again.allocation != run.allocation
    [report] = sent(replies(c, again, S.FAILED, exit_code=1), m.JobReport)
    assert report.phase is P.FAILED


def test_jobs_of_a_lost_node_are_placed_anew_only_after_its_lease_has_surely_ended():
    c = attached(node("n1"), node("n2"))
    [run] = sent(c.say(place(gpus=8)), m.Run)
    home = c.machine.state.allocations[run.allocation].node
    other = "n2" if home == "n1" else "n1"
    c.say(m.NodeDetached(node=home))
    runs = []
    for _ in range(30):
        c.say(m.NodeHeard(node=other, heartbeat=m.NodeHeartbeat(sequence=1)))
        runs += sent(c.wait(1000), m.Run)
    assert runs == []
    c.say(m.NodeHeard(node=other, heartbeat=m.NodeHeartbeat(sequence=1)))
    again = sent(c.wait(5000), m.Run)[0]
    assert c.machine.state.allocations[again.allocation].node == other
    report = m.AllocationReport(allocation=run.allocation, generation=1, state=S.RUNNING)
    hello = m.NodeHello(node=node(home), allocations=(report,))
    [stop] = sent(c.say(m.NodeAttached(hello=hello)), m.Stop)
    assert stop.allocation == run.allocation, "what was given up for lost must not run on"


def test_a_heartbeat_under_a_fresh_lease_is_heard_and_not_answered():
    c = attached(node("n1"), node("n2"))
    before = c.machine.peers["n1"].granted_until_ms
    c.wait(5000)
    fresh = m.NodeHeard(node="n1", heartbeat=m.NodeHeartbeat(sequence=5, fresh=True))
    asks = m.NodeHeard(node="n2", heartbeat=m.NodeHeartbeat(sequence=5))
    [answer] = c.say(m.NodesHeard((fresh, asks)))
    assert answer == m.SendToNode("n2", m.Lease(sequence=5, duration_ms=30_000))
    assert c.machine.peers["n1"].heard_ms == c.now_ms
    assert c.machine.peers["n1"].granted_until_ms == before, "nothing was granted"
    assert c.machine.peers["n2"].granted_until_ms == c.now_ms + 30_000


def test_a_short_lease_still_leaves_the_dead_mans_switch_time_to_act():
    short = ClusterTimes(node_lease_ms=1000)
    where = Cluster(id=ClusterId("c1"), region="aws/us-east-1")
    c = Teller(ClusterMachine(where, ranking.policy("pack"), short))
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=300_000))
    for name in ("n1", "n2"):
        c.say(m.NodeAttached(hello=m.NodeHello(node=node(name))))
    [run] = sent(c.say(place()), m.Run)
    home = c.machine.state.allocations[run.allocation].node
    other = "n2" if home == "n1" else "n1"
    c.say(m.NodeDetached(node=home))
    for _ in range(20):
        c.say(m.NodeHeard(node=other, heartbeat=m.NodeHeartbeat(sequence=1)))
        assert sent(c.wait(100, step_ms=50), m.Run) == [], "it may be running there yet"
    c.say(m.NodeHeard(node=other, heartbeat=m.NodeHeartbeat(sequence=1)))
    assert len(sent(c.wait(400, step_ms=50), m.Run)) == 1


def test_a_node_back_in_time_keeps_its_replicas():
    c = attached()
    [run] = sent(c.say(place()), m.Run)
    replies(c, run, S.RUNNING)
    c.say(m.NodeDetached(node="n1"))
    c.wait(10_000)
    report = m.AllocationReport(allocation=run.allocation, generation=1, state=S.RUNNING)
    commands = c.say(m.NodeAttached(hello=m.NodeHello(node=node(), allocations=(report,))))
    assert not sent(commands, m.Stop)
    assert not sent(commands, m.Run)
    assert c.machine.state.jobs["train"].status.phase is P.RUNNING


def test_an_unanswered_order_is_sent_again():
    c = attached()
    [run] = sent(c.say(place()), m.Run)
    assert run in sent(c.wait(3000), m.Run)


def test_after_a_restart_of_the_scheduler_nothing_is_forgotten():
    c = attached()
    [run] = sent(c.say(place(secrets={"KEY": Secret("s3cret")})), m.Run)
    assert run.job.secrets["KEY"].value == "s3cret"
    fresh = ClusterMachine(
        Cluster(id=ClusterId("c1"), region="aws/us-east-1"), ranking.policy("pack")
    )
    c.restart(lambda: fresh)
    commands = c.say(m.NodeAttached(hello=m.NodeHello(node=node())))
    assert run in sent(commands, m.Run), "the agent did not mention it, so it is ordered again"


def test_secrets_are_kept_out_of_the_journal():
    c = attached()
    c.say(place(secrets={"KEY": Secret("s3cret")}))
    import msgspec

    from hyperion.control.records import UNJOURNALED

    journal = [msgspec.json.encode(x) for x in c.records if not isinstance(x, UNJOURNALED)]
    assert journal
    assert not any(b"s3cret" in line for line in journal)


def test_a_cordoned_node_gets_nothing_new_and_a_drained_one_is_emptied():
    c = attached()
    [run] = sent(c.say(place()), m.Run)
    replies(c, run, S.RUNNING)
    c.say(m.CordonRequested(node="n1", cordon=True, token=1))
    assert sent(c.say(place(id="second")), m.Run) == []
    commands = c.say(m.CordonRequested(node="n1", cordon=True, drain=True, token=2))
    [stop] = sent(commands, m.Stop)
    replies(c, stop, S.STOPPED)
    assert c.machine.state.jobs["train"].status.phase is P.QUEUED
    assert sent(c.say(m.CordonRequested(node="n1", cordon=False, token=3)), m.Run)


def test_a_job_that_can_never_fit_is_given_back_to_the_federation():
    c = attached()
    [report] = sent(c.say(place(gpus=0, cpus=1000)), m.JobReport)
    assert report.refused
    assert "CPU" in report.reason


def test_higher_priority_goes_first():
    from hyperion.model.job import Priority

    c = attached(node(gpus=0, cpus=1))
    c.say(place(id="first", gpus=0))
    c.say(place(id="batch", gpus=0), place(id="urgent", gpus=0, priority=Priority.LATENCY_CRITICAL))
    [running] = c.machine.state.allocations.values()
    run = m.Stop(allocation=running.id, generation=running.generation)
    [after] = sent(replies(c, run, S.SUCCEEDED, exit_code=0), m.Run)
    assert after.job.id == "urgent"


def test_cut_off_for_a_whole_lease_it_stops_the_federations_jobs():
    c = cluster()
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=20_000))
    c.say(m.NodeAttached(hello=m.NodeHello(node=node())))
    [run] = sent(c.say(place()), m.Run)
    replies(c, run, S.RUNNING)
    assert sent(c.wait(14_000), m.Stop) == []
    [stop] = sent(c.wait(2000), m.Stop)
    [report] = sent(replies(c, stop, S.STOPPED), m.JobReport)
    assert report.lost, "its stay here has ended, not the job"
    assert sent(c.say(place(generation=1, id="new")), m.Run) == []


def test_what_waits_when_the_lease_ends_must_not_start_when_it_is_renewed():
    c = cluster()
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=20_000))
    c.say(place())
    c.wait(30_000)
    c.say(m.NodeAttached(hello=m.NodeHello(node=node())))
    [hello] = sent(c.say(m.FederationAttached()), m.ClusterHello)
    assert hello.jobs[0].lost
    assert sent(c.say(m.Lease(sequence=0, duration_ms=20_000)), m.Run) == []


def test_fencing_leaves_no_grace_that_outlasts_the_lease():
    c = cluster()
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=20_000))
    c.say(m.NodeAttached(hello=m.NodeHello(node=node())))
    [run] = sent(c.say(place(checkpoint=Checkpoint(grace_s=1800))), m.Run)
    replies(c, run, S.RUNNING)
    [patient] = sent(c.say(m.StopJob(job="train", generation=2, phase=P.CANCELLED)), m.Stop)
    assert patient.grace_ms == 1_800_000
    impatient = sent(c.wait(16_000), m.Stop)[-1]
    assert impatient.generation > patient.generation
    assert impatient.grace_ms <= 1000


def test_a_blueprint_job_submitted_to_the_cluster_itself_runs():
    c = cluster()
    c.say(m.NodeAttached(hello=m.NodeHello(node=node())))
    commands = c.say(m.JobSubmitted(job=job(), token=5))
    assert m.Answer(5, "train") in commands
    assert sent(commands, m.Run)


def test_a_job_whose_id_the_cluster_uses_itself_is_refused():
    c = attached()
    c.say(m.JobSubmitted(job=job(), token=5))
    [report] = sent(c.say(place()), m.JobReport)
    assert report.refused
    assert c.machine.state.jobs["train"].status.generation == 0
