"""Stories about jobs that wait for the federation together."""

import sys

import pytest
from msgspec.structs import replace
from stories import MARKET, Teller, job, load, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.model.job import Checkpoint, DataSource, JobPhase
from hyperion.placement import ranking
from hyperion.placement.optimal import Optimal
from hyperion.placement.ranking import Guarded, Rankers

DATA = "aws/us-east-1"


def hello(id, region, **more):
    cluster = Cluster(id=ClusterId(id), region=region)
    return m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load(**more)))


def waiting(*jobs, policy="balanced", rankers=None, market=MARKET):
    """Jobs that have waited while nobody was there, and then two clusters join at once: beside the
    data there is room for one of them."""
    f = Teller(Federation(replace(market, internet_egress={"aws": 0.09}), policy, rankers=rankers))
    f.say(*(m.JobSubmitted(job=j, token=n + 1) for n, j in enumerate(jobs)))
    here, far = hello("here", DATA, nodes=1, usd_per_hour=8.0), hello("far", "gcp/europe-west1")
    for event in (here, far):
        f._take(f.machine.handle(event, f.now_ms))
    f._take(f.machine.round(f.now_ms))
    return f


def where(f):
    return {str(id): str(known.status.cluster) for id, known in f.machine.state.jobs.items()}


def mover(id, size_gib, **more):
    return job(id, gpus=8, data=(DataSource("s3://d", size_gib, DATA),), **more)


def test_the_last_room_beside_the_data_goes_to_whom_it_saves_most():
    f = waiting(mover("first", 10.0), mover("second", 5000.0))
    assert where(f) == {"first": "far", "second": "here"}
    told = f.machine.state.decisions["first"]
    assert "here (aws/us-east-1) goes to jobs that wait with it" in told.sentence
    [row] = [row for row in told.rows if row.cluster == "here"]
    assert row.reason == "goes to jobs that wait with it and would lose more elsewhere"


@pytest.mark.parametrize("more", [{"priority": 3}, {"nice": -5}, {"policy": "cheapest"}])
def test_whoever_has_other_rights_is_not_weighed_against_those_behind(more):
    f = waiting(mover("first", 10.0, **more), mover("second", 5000.0))
    assert where(f) == {"first": "here", "second": "far"}


def test_jobs_whose_policy_puts_no_start_off_are_weighed_whatever_is_forecast():
    forecast = replace(MARKET, carbon_forecast={DATA: ((2_000_000, 300.0),)})
    timely = {"expected_s": 3600.0, "deadline_s": 90_000.0, "policy": "cheapest"}
    f = waiting(mover("first", 10.0, **timely), mover("second", 5000.0, **timely), market=forecast)
    assert where(f) == {"first": "far", "second": "here"}


def test_one_that_waits_alone_goes_where_the_plan_says():
    for size_gib in (10.0, 5000.0):
        f = waiting(mover("only", size_gib))
        assert where(f) == {"only": "here"}
        assert f.machine.state.decisions["only"].rows[0].chosen


def test_who_finds_no_room_beside_the_others_queues_as_before():
    f = waiting(*(mover(f"j{n}", 10.0) for n in range(7)))
    places = list(where(f).values())
    assert sorted(set(places)) == ["far", "here"]
    assert len(sent(f.commands, m.PlaceJob)) == 7


# -- the exact policy ------------------------------------------------------------------------------


def crowd():
    """Two jobs and one room beside their data; one by one the wrong one takes it."""
    return [mover(f"j{n}", 100.0 * (n + 1)) for n in range(2)]


def test_optimal_gives_the_same_rooms_so_that_they_cost_least():
    pytest.importorskip("highspy", reason="the extra optimal is not installed")
    f = waiting(*crowd(), policy="optimal")
    assert where(f) == {"j0": "far", "j1": "here"}
    assert f.machine.rankers.of("optimal").replaced == 0


def test_a_proof_that_comes_too_late_is_done_without_and_counted():
    pytest.importorskip("highspy", reason="the extra optimal is not installed")
    late = Guarded(Optimal(limit_ms=0.0))
    f = waiting(*crowd(), policy="optimal", rankers=Rankers(lambda _: late))
    assert where(f) == {"j0": "far", "j1": "here"}, "as regret has it"
    assert late.replaced == 1
    assert late.fault == "found no proof within 0 ms"
    told = f.machine.state.decisions["j0"].arithmetic[-1]
    assert told == "Policy balanced ranked instead of optimal, which found no proof within 0 ms."


@pytest.mark.parametrize(
    "answer",
    [None, 7, [], [[0]], [["x"], [0]], [[99], [0]], [[-1], [0]], [[None], [0]], [[0], [0], [0]]],
    ids=str,
)
def test_an_answer_that_is_none_costs_a_policy_the_round_and_nobody_else(answer):
    class Odd(Optimal):
        def assign(self, contest):
            return answer

    odd = Guarded(Odd())
    f = waiting(*crowd(), policy="optimal", rankers=Rankers(lambda _: odd))
    assert where(f) == {"j0": "far", "j1": "here"}, "as regret has it"
    assert odd.replaced == 1
    assert "Policy balanced ranked instead" in f.machine.state.decisions["j0"].arithmetic[-1]


def test_a_policy_that_writes_on_its_question_changes_nobody_elses_answer():
    class Greedy(Optimal):
        def assign(self, contest):
            contest.rooms.ahead[:] = [(-(10**9), -(10**9), -(10**9))] * 2
            for given in contest.start:
                given[:] = [0]
            return contest.start

    f = waiting(*crowd(), policy="optimal", rankers=Rankers(lambda _: Guarded(Greedy())))
    assert where(f) == {"j0": "far", "j1": "here"}, "as regret has it"


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(ValueError, match=r"pip install 'hyperion-x\[optimal\]'"):
        ranking.policy("optimal")
    f = waiting(*crowd(), policy="optimal")
    assert "not installed" in f.machine.state.decisions["j0"].arithmetic[-1]


# -- what is left of a job -------------------------------------------------------------------------


def test_a_job_that_comes_back_is_ranked_by_what_is_left_of_it():
    """All of it pays for the move to the cheap cluster, the last hours do not."""
    f = Teller(Federation(replace(MARKET, internet_egress={"aws": 0.09}), "balanced"))
    f.say(hello("here", DATA, usd_per_hour=8.0), hello("far", "gcp/europe-west1", usd_per_hour=4.0))
    hours = 3600.0
    saves = Checkpoint(dir="/c", every_s=60.0)
    train = mover("train", 500.0, expected_s=20 * hours, checkpoint=saves)
    [order] = sent(f.say(m.JobSubmitted(job=train, token=1)), m.PlaceJob)
    assert where(f) == {"train": "far"}
    far = ClusterId("far")
    running = m.JobReport(
        job="train", generation=order.generation, version=2, phase=JobPhase.RUNNING,
        started_at_ms=f.now_ms,
    )  # fmt: skip
    f.say(m.ClusterReported(cluster=far, report=running))
    f.now_ms += int(1000 * 15 * hours)
    for cluster in ("here", "far"):
        beat = m.ClusterHeartbeat(sequence=1)
        f._take(f.machine.handle(m.ClusterHeard(ClusterId(cluster), beat), f.now_ms))
    lost = m.JobReport(
        job="train", generation=order.generation, version=3, phase=JobPhase.QUEUED, lost=True
    )
    f.say(m.ClusterReported(cluster=far, report=lost))
    assert where(f) == {"train": "here"}
    assert 5.0 <= f.machine.state.jobs["train"].status.price.hours < 5.1
    lines = f.machine.state.bills.lines.values()
    assert [line.home_usd_per_hour for line in lines] == [8.0, 8.0], "home costs what it did"
