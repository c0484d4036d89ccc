"""Bills of jobs and budgets of their tenants, as stories told to a federation."""

import pytest
from stories import MARKET, Teller, job, load, names, sent

from hyperion.control import bill_records as b
from hyperion.control import bills
from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import DataSource, JobPhase
from hyperion.placement.dates import month_begins_ms

P = JobPhase
HOUR_MS = 3_600_000
PLENTY = FederationTimes(cluster_lease_ms=10_000 * HOUR_MS, node_lease_ms=1)


def attached(*clusters, times=PLENTY, **more):
    """A federation with clusters of 8 A100 for 8 USD an hour each."""
    teller = Teller(Federation(MARKET, "balanced", times, **more))
    for name in clusters or ("lab",):
        hello = m.ClusterHello(
            cluster=Cluster(id=ClusterId(name), region="aws/us-east-1"),
            load=load(usd_per_hour=8.0),
            jobs=(),
        )
        teller.say(m.ClusterAttached(hello=hello))
    return teller


def status(teller, id="train"):
    return teller.machine.state.jobs[JobId(id)].status


def report(teller, phase, id="train", after_ms=1, **more):
    """The job's cluster says something new of it."""
    now = status(teller, id)
    said = m.JobReport(
        job=JobId(id),
        generation=more.pop("generation", now.generation),
        version=now.version + 1,
        phase=phase,
        started_at_ms=more.pop("started_at_ms", 0),
        **more,
    )
    return teller.say(m.ClusterReported(cluster=now.cluster, report=said), after_ms=after_ms)


def started(teller, id="train"):
    report(teller, P.RUNNING, id, started_at_ms=teller.now_ms)


def lines(teller, id="train"):
    return teller.machine.state.bills.of(JobId(id))


def test_a_job_that_ran_an_hour_has_one_line_with_all_of_it():
    teller = attached()
    teller.say(m.JobSubmitted(job(user="ann", queue="vision", gpus=8, cpus=1)))
    started(teller)
    began_ms = status(teller).started_at_ms
    report(teller, P.SUCCEEDED, after_ms=began_ms + HOUR_MS - teller.now_ms)
    (line,) = lines(teller)
    assert (line.user, line.queue, line.cluster) == ("ann", "vision", "lab")
    assert line.hours == pytest.approx(1.0)
    assert line.usd == pytest.approx(8.0) == status(teller).spent_usd
    assert line.kwh == pytest.approx(1.5 * (8 * 0.3 + 0.00354), rel=0.5)
    assert line.gco2e == pytest.approx(line.kwh * 400)


def test_egress_is_on_the_line_as_soon_as_the_job_is_placed():
    market = type(MARKET)(
        as_of="2026", regions=MARKET.regions, egress={("gcp/europe-west1", "aws/us-east-1"): 0.1}
    )
    teller = attached()
    teller.say(m.MarketQuoted(market))
    data = (DataSource("gs://x", 50.0, "gcp/europe-west1"),)
    teller.say(m.JobSubmitted(job(data=data)))
    (line,) = lines(teller)
    assert line.egress_usd == pytest.approx(5.0) == status(teller).spent_usd
    assert (line.usd, line.home) == (0.0, "aws/us-east-1")  # nothing is known of the other one


def test_a_job_that_moves_has_a_line_for_each_place():
    teller = attached("lab", "pool")
    teller.say(m.JobSubmitted(job()))
    first = status(teller).cluster
    started(teller)
    report(teller, P.RUNNING, started_at_ms=status(teller).started_at_ms, after_ms=HOUR_MS)
    report(teller, P.CANCELLED, refused=True)
    started(teller)
    report(teller, P.FAILED, after_ms=HOUR_MS)
    one, two = lines(teller)
    assert (one.cluster, two.cluster) == (first, status(teller).cluster)
    assert one.usd + two.usd == pytest.approx(status(teller).spent_usd)
    assert one.hours == pytest.approx(1.0, abs=1e-4)


def test_a_job_placed_for_ever_has_a_bounded_bill():
    teller = attached("lab", "pool", times=FederationTimes(reconsider_ms=0))
    teller.say(m.JobSubmitted(job()))
    for _ in range(3 * bills.LINES_A_JOB):
        started(teller)
        report(teller, P.QUEUED, lost=True)
    assert len(lines(teller)) <= bills.LINES_A_JOB + 2


def test_home_is_what_its_machines_cost_there_and_may_be_named():
    teller = attached()
    teller.say(m.JobSubmitted(job(gpus=4)))
    (line,) = lines(teller)
    assert (line.home, line.home_usd_per_hour) == ("aws/us-east-1", pytest.approx(4.0))
    elsewhere = attached(home="gcp/europe-west1")
    elsewhere.say(m.JobSubmitted(job()))
    (line,) = lines(elsewhere)
    assert (line.home, line.home_usd_per_hour) == ("gcp/europe-west1", None)


def test_lines_outlive_their_jobs_and_become_parts_of_months():
    times = FederationTimes(cluster_lease_ms=10_000 * HOUR_MS, ended_kept=0, bills_kept=1)
    teller = attached(times=times)
    for n in range(3):
        teller.say(m.JobSubmitted(job(f"j{n}", user="ann")))
        started(teller, f"j{n}")
        report(teller, P.SUCCEEDED, f"j{n}", after_ms=HOUR_MS)
    spent = sum(x.usd for x in teller.machine.state.bills.lines.values())
    teller.wait(3000)
    kept = teller.machine.state.bills
    assert not teller.machine.state.jobs
    assert len(kept.lines) == 1
    (month,) = kept.months.values()
    assert (month.month, month.user, month.lines) == ("1970-01", "ann", 2)
    assert month.usd + sum(x.usd for x in kept.lines.values()) == pytest.approx(spent)
    teller.restart(lambda: Federation(MARKET, "balanced", times))
    again = teller.machine.state.bills
    assert (again.lines, again.months) == (kept.lines, kept.months)


def test_an_id_that_comes_again_gets_a_bill_of_its_own():
    teller = attached(times=FederationTimes(cluster_lease_ms=10_000 * HOUR_MS, ended_kept=0))
    for _ in range(2):
        teller.say(m.JobSubmitted(job()))
        started(teller)
        report(teller, P.SUCCEEDED, after_ms=HOUR_MS)
        assert [x.hours for x in lines(teller)] == [pytest.approx(1.0, abs=1e-3)]
        teller.wait(2000)
    (month,) = teller.machine.state.bills.months.values()
    assert month.hours == pytest.approx(1.0, abs=1e-3)


def test_a_line_over_two_months_is_the_sum_of_its_parts():
    begins_ms = month_begins_ms("2026-02") - HOUR_MS
    line = b.BillLine(
        job=JobId("x"), placed=1, placed_at_ms=begins_ms, started_at_ms=begins_ms,
        ended_at_ms=begins_ms + 3 * HOUR_MS, hours=3.0, usd=30.0, egress_usd=1.0,
        home_usd_per_hour=20.0,
    )  # fmt: skip
    parts = dict(bills.by_month(line, begins_ms, line.ended_at_ms))
    assert {month: part.paid_usd for month, part in parts.items()} == {
        "2026-01": pytest.approx(11.0),
        "2026-02": pytest.approx(20.0),
    }
    assert sum(part.home_usd for part in parts.values()) == pytest.approx(60.0)


# -- budgets --------------------------------------------------------------------------------------


def budget(usd, then, tenant="user:ann", per="month"):
    return m.BudgetApplied(b.Budget(tenant=tenant, usd=usd, per=per, then=then))


def spends(teller, id="first"):
    """A job of Ann's runs for an hour, which costs 1 USD."""
    teller.say(m.JobSubmitted(job(id, user="ann")))
    started(teller, id)
    teller.say(m.Tick(), after_ms=HOUR_MS)


def test_a_warning_is_kept_once_and_nothing_else_follows():
    teller = attached()
    teller.say(budget(0.5, "warn"))
    spends(teller)
    teller.wait(20_000)
    reached = [x for x in teller.records if isinstance(x, b.BudgetReached)]
    assert [(x.tenant, x.period) for x in reached] == [("user:ann", "1970-01")]
    assert reached[0].spent_usd == pytest.approx(1.0, rel=0.01)
    teller.say(m.JobSubmitted(job("second", user="ann")))
    assert status(teller, "second").phase is P.ASSIGNED
    told = teller.machine.state.budgets.warning(job(user="ann"), teller.now_ms)
    assert told == "the budget of user ann ($0.50 per month) is spent"


def test_held_jobs_wait_with_a_reason_and_go_on_when_the_budget_is_raised():
    teller = attached()
    teller.say(budget(0.5, "hold"))
    spends(teller)
    teller.say(m.JobSubmitted(job("second", user="ann")), m.JobSubmitted(job("bobs", user="bob")))
    held = status(teller, "second")
    assert (held.phase, held.held) == (P.QUEUED, "user:ann")
    assert held.reason.startswith("waits since the budget of user ann ($0.50 per month) is spent")
    assert status(teller, "bobs").phase is P.ASSIGNED
    assert status(teller, "first").phase is P.RUNNING
    teller.say(budget(50.0, "hold"))
    assert status(teller, "second").phase is P.ASSIGNED


def test_a_held_job_goes_on_with_the_next_day_and_after_a_restart():
    teller = attached()
    teller.say(budget(0.5, "hold", "queue:default", "day"))
    spends(teller)
    report(teller, P.SUCCEEDED, "first")
    teller.say(m.JobSubmitted(job("second")))
    assert status(teller, "second").held == "queue:default"
    teller.restart(lambda: Federation(MARKET, "balanced", PLENTY))
    assert status(teller, "second").held == "queue:default"
    teller.wait(24 * HOUR_MS, step_ms=HOUR_MS)
    assert status(teller, "second").held == ""


def test_pausing_stops_a_job_and_it_goes_on_from_its_checkpoint():
    teller = attached()
    teller.say(budget(0.5, "pause"))
    spends(teller)
    commands = teller.wait(10_000)
    (stop,) = {(x.job, x.comes_back, x.generation) for x in sent(commands, m.StopJob)}
    assert stop == ("first", True, status(teller, "first").generation)
    report(teller, P.CANCELLED, "first", lost=True)
    stopped = status(teller, "first")
    assert (stopped.phase, stopped.held, stopped.wanted) == (P.QUEUED, "user:ann", None)
    assert stopped.losses == 0
    spent_usd = stopped.spent_usd
    teller.wait(HOUR_MS, step_ms=60_000)
    assert status(teller, "first").spent_usd == spent_usd
    again = teller.say(m.BudgetDropAsked("user:ann"))
    assert "PlaceJob" in names(again)
    assert status(teller, "first").phase is P.ASSIGNED


def test_a_job_that_is_being_paused_can_be_cancelled_and_may_succeed():
    for phase, ends in ((P.CANCELLED, P.CANCELLED), (P.SUCCEEDED, P.SUCCEEDED)):
        teller = attached()
        teller.say(budget(0.5, "pause"))
        spends(teller)
        teller.wait(6000)
        if ends is P.CANCELLED:
            teller.say(m.JobCancelRequested(JobId("first"), by="ann"))
        report(teller, phase, "first")
        assert status(teller, "first").phase is ends


def test_a_cluster_lost_while_it_stops_a_job_leaves_it_waiting():
    teller = attached(times=FederationTimes(cluster_lease_ms=2 * HOUR_MS))
    teller.say(budget(0.5, "pause"))
    spends(teller)
    teller.wait(6000)
    teller.say(m.ClusterDetached(ClusterId("lab")))
    teller.wait(3 * HOUR_MS, step_ms=60_000)
    lost = status(teller, "first")
    assert (lost.phase, lost.held, lost.losses) == (P.QUEUED, "user:ann", 1)


def test_dropping_what_is_not_there_is_refused():
    teller = attached()
    (answer,) = teller.say(m.BudgetDropAsked("user:eve", token=7))
    assert (answer.code, answer.token) == ("not_found", 7)
