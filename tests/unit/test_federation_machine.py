"""Stories about the federation."""

from stories import MARKET, federation, job, load, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.model.job import Budget, Secret
from hyperion.model.job import JobPhase as P


def hello(id="c1", region="aws/us-east-1", jobs=(), **more):
    cluster = Cluster(id=ClusterId(id), region=region)
    return m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load(**more), jobs=jobs))


def submitted(*jobs, clusters=(("c1", 10.0),)):
    f = federation()
    for id, usd_per_hour in clusters:
        f.say(hello(id, usd_per_hour=usd_per_hour))
    commands = f.say(*(m.JobSubmitted(job=j, token=n + 1) for n, j in enumerate(jobs)))
    return f, sent(commands, m.PlaceJob)


def reports(f, order, phase, version=2, cluster="c1", **facts):
    report = m.JobReport(
        job=order.job.id, generation=order.generation, version=version, phase=phase, **facts
    )
    return f.say(m.ClusterReported(cluster=ClusterId(cluster), report=report))


def status(f, id="train"):
    return f.machine.state.jobs[id].status


def test_a_job_goes_to_the_cheapest_cluster_and_ends_there():
    f, [order] = submitted(job(), clusters=(("dear", 50.0), ("cheap", 5.0)))
    assert status(f).cluster == "cheap"
    assert status(f).price.usd_per_hour > 0
    reports(f, order, P.RUNNING, cluster="cheap", started_at_ms=f.now_ms)
    f.now_ms += 3_600_000
    commands = reports(f, order, P.SUCCEEDED, 3, cluster="cheap", exit_code=0)
    assert sent(commands, m.ForgetJob)
    assert status(f).phase is P.SUCCEEDED
    assert abs(status(f).spent_usd - status(f).price.usd_per_hour) < 0.01


def test_a_retried_submission_is_not_a_second_job():
    f, orders = submitted(job(), job())
    assert len(orders) == 1
    answers = [c for c in f.commands if isinstance(c, m.Answer)]
    assert [a.error for a in answers] == ["", ""]


def test_reports_out_of_order_do_not_turn_time_back():
    f, [order] = submitted(job())
    reports(f, order, P.RUNNING, version=5, started_at_ms=1)
    reports(f, order, P.STARTING, version=4)
    assert status(f).phase is P.RUNNING


def test_a_waiting_job_says_why_and_goes_as_soon_as_a_cluster_comes():
    f = federation()
    f.say(m.JobSubmitted(job=job(), token=1))
    assert status(f).phase is P.QUEUED
    assert status(f).reason
    assert sent(f.say(hello()), m.PlaceJob)


def test_a_job_like_one_that_does_not_fit_is_told_why_as_well():
    f, orders = submitted(job("first", gpus=64))
    assert orders == []
    f.wait(2000)
    f.say(m.JobSubmitted(job=job("second", gpus=64), token=2))
    f.wait(2000)
    assert status(f, "second").reason == status(f, "first").reason != ""
    told = len(f.records)
    f.wait(5000)
    assert len(f.records) == told, "it is told once"


def test_cancel_while_waiting_and_while_running():
    f = federation()
    f.say(m.JobSubmitted(job=job("waits"), token=1))
    f.say(m.JobCancelRequested(job="waits", by="ann", token=2))
    assert status(f, "waits").phase is P.CANCELLED
    f, [order] = submitted(job())
    reports(f, order, P.RUNNING)
    [stop] = sent(f.say(m.JobCancelRequested(job="train", by="ann", token=3)), m.StopJob)
    assert status(f).phase is P.STOPPING
    reports(f, order, P.SUCCEEDED, 9)
    assert status(f).phase is P.STOPPING, "that answered the order before the cancellation"
    report = m.JobReport(job="train", generation=stop.generation, version=3, phase=P.CANCELLED)
    f.say(m.ClusterReported(cluster="c1", report=report))
    assert status(f).phase is P.CANCELLED
    assert status(f).reason == "cancelled by ann"


def test_cancelling_an_unknown_job_says_so():
    f = federation()
    [answer] = f.say(m.JobCancelRequested(job="nope", token=4))
    assert (answer.code, answer.error) == ("not_found", "no job nope")


def test_a_refusal_sends_the_job_elsewhere():
    f, [order] = submitted(job(), clusters=(("c1", 5.0), ("c2", 50.0)))
    commands = reports(f, order, P.CANCELLED, refused=True, reason="no such GPU")
    [again] = sent(commands, m.PlaceJob)
    assert status(f).cluster == "c2"
    assert again.generation == order.generation + 1


def test_a_job_that_the_only_cluster_refused_says_why():
    f, [order] = submitted(job(), clusters=(("c1", 5.0),))
    commands = reports(f, order, P.CANCELLED, refused=True, reason='there is no queue "speach"')
    assert sent(commands, m.PlaceJob) == []
    assert status(f).phase is P.QUEUED
    assert status(f).reason == 'there is no queue "speach"'


def test_jobs_of_a_lost_cluster_move_only_after_its_lease_has_surely_ended():
    f, [order] = submitted(job(), clusters=(("c1", 5.0), ("c2", 50.0)))
    reports(f, order, P.RUNNING, started_at_ms=1)
    f.say(m.ClusterDetached(cluster=ClusterId("c1")))
    beat = m.ClusterHeartbeat(sequence=1)
    orders = []
    for _ in range(330):
        f.say(m.ClusterHeard(cluster=ClusterId("c2"), heartbeat=beat))
        orders += sent(f.wait(1000, step_ms=1000), m.PlaceJob)
    assert orders == [], "the cluster may still run it"
    for _ in range(60):
        f.say(m.ClusterHeard(cluster=ClusterId("c2"), heartbeat=beat))
        orders += sent(f.wait(1000, step_ms=1000), m.PlaceJob)
    again = orders[0]
    assert status(f).cluster == "c2"
    late = m.JobReport(job="train", generation=1, version=9, phase=P.RUNNING)
    [stop] = sent(f.say(hello("c1", jobs=(late,))), m.StopJob)
    assert stop.job == "train"
    assert status(f).cluster == "c2"
    assert again.generation == 2


def test_a_cluster_back_with_the_placement_that_waits_keeps_it():
    f, [order] = submitted(job())
    reports(f, order, P.RUNNING, started_at_ms=1)
    f.say(m.ClusterDetached(cluster=ClusterId("c1")))
    f.wait(400_000, step_ms=5000)
    assert status(f).phase is P.QUEUED
    late = m.JobReport(
        job="train", generation=order.generation, version=9, phase=P.RUNNING, started_at_ms=1
    )
    commands = f.say(hello("c1", jobs=(late,)))
    assert sent(commands, m.PlaceJob) == []
    assert status(f).phase is P.RUNNING


def test_a_deadline_ends_the_job():
    f, [order] = submitted(job(deadline_s=60))
    reports(f, order, P.RUNNING)
    assert sent(f.wait(59_000), m.StopJob) == []
    [stop] = sent(f.wait(2000), m.StopJob)
    assert stop.phase is P.FAILED
    assert "deadline of 60 s" in stop.reason


def test_a_budget_ends_the_job_when_it_is_spent():
    f, [order] = submitted(job(budget=Budget(max_usd=0.05), expected_s=60))
    per_hour = status(f).price.usd_per_hour
    reports(f, order, P.RUNNING, started_at_ms=f.now_ms)
    lasts_ms = int(0.05 * 3_600_000 / per_hour)
    assert sent(f.wait(lasts_ms - 10_000, step_ms=5000), m.StopJob) == []
    [stop] = sent(f.wait(20_000, step_ms=1000), m.StopJob)[:1]
    assert "budget of $0.05" in stop.reason


def test_a_budget_of_carbon_ends_the_job_when_it_is_spent_also_over_two_attempts():
    f, [order] = submitted(job(budget=Budget(max_kg_co2e=0.01), expected_s=1))
    lasts_ms = int(10 * 3_600_000 / status(f).price.gco2e_per_hour)
    assert lasts_ms > 40_000
    reports(f, order, P.RUNNING, 2, started_at_ms=f.now_ms)
    assert sent(f.wait(lasts_ms // 2, step_ms=5000), m.StopJob) == []
    reports(f, order, P.QUEUED, 3)
    assert sent(f.wait(20_000, step_ms=5000), m.StopJob) == []  # waits: emits nothing
    reports(f, order, P.RUNNING, 4, started_at_ms=f.now_ms)
    assert sent(f.wait(lasts_ms // 2 - 10_000, step_ms=5000), m.StopJob) == []
    [stop] = sent(f.wait(20_000, step_ms=1000), m.StopJob)[:1]
    assert "budget of 0.01 kg CO2e is spent" in stop.reason


def test_after_a_restart_orders_are_repeated_until_answered():
    f, [order] = submitted(job(secrets={"KEY": Secret("s3cret")}))
    f.restart(lambda: Federation(MARKET, "balanced"))
    commands = f.say(hello("c1"))
    [again] = sent(commands, m.PlaceJob)
    assert again == order


def test_a_cluster_that_forgot_an_answered_job_is_asked_and_may_have_lost_it():
    f, [order] = submitted(job())
    reports(f, order, P.RUNNING)
    [again] = sent(f.say(hello("c1")), m.PlaceJob)
    assert again.known
    commands = reports(f, again, P.QUEUED, version=0, lost=True)
    [anew] = sent(commands, m.PlaceJob)
    assert anew.generation == 2
    assert not anew.known


def test_the_plan_changes_nothing():
    f, _ = submitted()
    f.say(hello("c1"))
    before = dict(f.disk)
    planned = f.machine.plan(job())
    assert planned.chosen.cluster == "c1"
    assert planned.rows
    assert f.disk == before


def test_a_restart_within_the_cluster_does_not_empty_the_bill():
    f, [order] = submitted(job(budget=Budget(max_usd=15.0)))
    reports(f, order, P.RUNNING, 2, started_at_ms=f.now_ms)
    f.now_ms += 3_600_000
    reports(f, order, P.QUEUED, 3)  # rank 0 failed: a retry
    per_hour = status(f).price.usd_per_hour
    assert abs(status(f).spent_usd - per_hour) < 0.01
    f.now_ms += 3_600_000  # waits: costs nothing
    reports(f, order, P.RUNNING, 4, started_at_ms=f.now_ms)
    f.now_ms += 3_600_000
    reports(f, order, P.RUNNING, 7, started_at_ms=f.now_ms)  # the report of waiting was lost
    assert abs(status(f).spent_usd - 2 * per_hour) < 0.01
    f.now_ms += 3_600_000
    reports(f, order, P.SUCCEEDED, 8, exit_code=0, started_at_ms=status(f).started_at_ms)
    assert abs(status(f).spent_usd - 3 * per_hour) < 0.01
