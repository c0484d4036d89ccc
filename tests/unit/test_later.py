"""A job with time to spare starts when that is forecast to be cheaper, and never too late."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from stories import MARKET, Teller, job, load, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.model.job import JobPhase as P
from hyperion.model.job import Objective
from hyperion.placement import deadline, later
from hyperion.placement.balanced import BALANCED
from hyperion.placement.choice import FleetCluster, rank
from hyperion.placement.deadline import Slack
from hyperion.placement.objective import shares

HOUR_MS = 3_600_000
REGION = "aws/us-east-1"
GREEN = Objective(carbon_usd_per_tonne=50_000.0)


def ahead(*values, from_ms=1_000_000):
    """By the hour, from the hour after that instant on."""
    line = tuple((from_ms + (n + 1) * HOUR_MS, float(value)) for n, value in enumerate(values))
    return replace(MARKET, carbon_forecast={REGION: line})


def told(market, wished):
    f = Teller(Federation(market, "balanced"))
    cluster = Cluster(id=ClusterId("c1"), region=REGION)
    f.say(m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load(), jobs=())))
    planned = f.machine.plan(wished)
    return f, planned, sent(f.say(m.JobSubmitted(job=wished, token=1)), m.PlaceJob)


def until_placed(f, hours):
    """Hours until it is placed."""
    for minute in range(60 * hours):
        f.say(m.ClusterHeard(ClusterId("c1"), m.ClusterHeartbeat(sequence=minute)))
        if sent(f.wait(60_000, step_ms=20_000), m.PlaceJob):
            return (minute + 1) / 60
    return None


def test_it_waits_for_the_green_hour_and_says_what_that_saves():
    wished = job(expected_s=3600, deadline_s=10 * 3600, objective=GREEN)
    f, planned, orders = told(ahead(400, 400, 100, 400, 400, 400), wished)
    assert orders == []
    status = f.machine.state.jobs["train"].status
    assert status.phase is P.QUEUED
    price = planned.chosen.price
    saved = 0.75 * shares(wished.objective, price).carbon - 3 * 0.05
    assert f"starts at 1970-01-01 03:16 UTC: saves ${saved:,.2f}" in status.reason
    assert status.reason in planned.sentence, "plan has said so before"
    assert 2.9 < until_placed(f, 5) < 3.1


def test_it_starts_at_once_where_that_is_what_it_wants_or_nothing_is_gained_or_there_is_no_time():
    market = ahead(400, 400, 100, 400, 400, 400)
    wished = job(expected_s=3600, deadline_s=10 * 3600, objective=GREEN)
    for other in (
        replace(wished, start_now=True),
        replace(wished, objective=Objective()),  # a few cents of carbon are not worth the wait
        replace(wished, deadline_s=3.5 * 3600),
        replace(wished, deadline_s=0.0),
        replace(wished, expected_s=0.0),
        replace(wished, expected_s=8 * 3600.0),  # the forecast ends before it would
    ):
        assert told(market, other)[2], other


def test_a_place_whose_forecast_is_too_short_is_still_there_at_once():
    here, there = ahead(400).carbon_forecast[REGION], ahead(10, 10, 10, 10).carbon_forecast[REGION]
    market = replace(MARKET, carbon_forecast={REGION: here, "gcp/europe-west1": there})
    wished = job(expected_s=7200, deadline_s=20 * 3600, objective=GREEN)
    for usd_per_hour, waits in ((100.0, False), (1.0, True)):
        fleet = [
            FleetCluster(
                cluster=Cluster(id=ClusterId(name), region=region),
                load=load(usd_per_hour=usd),
            )
            for name, region, usd in (
                ("short", REGION, 1.0),
                ("long", "gcp/europe-west1", usd_per_hour),
            )
        ]
        places = rank(wished, fleet, market, BALANCED)
        found = later.best_start(wished, places, market, 1_000_000, Slack(20 * 3600.0))
        assert (found is not None) is waits


def test_a_round_ends_after_a_few_that_are_planned_by_themselves():
    f = Teller(Federation(ahead(400), "balanced", FederationTimes(placements_per_round=40)))
    cluster = Cluster(id=ClusterId("c1"), region=REGION)
    f.say(m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load(nodes=9), jobs=())))
    for n in range(9):
        wished = job(f"j{n}", expected_s=3600, deadline_s=10 * 3600)
        f.machine.handle(m.JobSubmitted(job=wished, token=1), f.now_ms)
    placed = []
    while f.machine.wants_round and len(placed) < 9:
        placed.append(len(sent(f.machine.round(f.now_ms).commands, m.PlaceJob)))
    assert placed == [4, 4, 1]


def test_a_forecast_that_changes_is_looked_at_again():
    wished = job(expected_s=3600, deadline_s=20 * 3600, objective=GREEN)
    f, _, orders = told(ahead(400, 400, 400, 400, 400, 100, 400), wished)
    assert orders == []
    f.say(m.MarketQuoted(ahead(900, 900, 900, 900, 900, 900, 900)))
    assert 0.9 < until_placed(f, 3) < 1.1


values = st.lists(st.floats(1.0, 900.0), min_size=1, max_size=12)


@given(values, st.floats(0.3, 30.0), st.sampled_from((1800, 3600, 9000)))
def test_no_start_is_too_late_and_none_is_better(values, spare, expected_s):
    wished = job(expected_s=expected_s, deadline_s=spare * expected_s, objective=GREEN)
    market = ahead(*values)
    f, planned, _ = told(market, wished)
    found = planned.later
    slack = Slack(wished.deadline_s)
    now_ms = f.now_ms - 1
    if found is not None:
        waits_s = (found.start_ms - now_ms) / 1000.0
        there = Slack(slack.left_s - waits_s)
        assert not deadline.must_leave_spot(wished, there), "it can still end in time"
    price = planned.chosen.price
    parts = shares(wished.objective, price)
    line = [(now_ms, 400.0), *market.carbon_forecast[REGION]]

    def cost(start_ms):
        end_ms, grams = start_ms + expected_s * 1000, 0.0
        for (at_ms, value), (next_ms, _) in pairwise(line):
            grams += value * max(0, min(next_ms, end_ms) - max(at_ms, start_ms))
        mean = grams / (1000 * expected_s) / 400.0
        return price.score + parts.carbon * (mean - 1) + 0.05 * (start_ms - now_ms) / HOUR_MS

    latest_ms = now_ms + 1000 * deadline.spare_s(wished, slack, planned.chosen.market)
    fits = [
        start_ms
        for start_ms, _ in line
        if (start_ms == now_ms or start_ms <= latest_ms)
        and start_ms + 1000 * expected_s <= line[-1][0]
    ]
    if now_ms not in fits:
        assert found is None
        return
    at_once, least = cost(now_ms), min(map(cost, fits))
    if at_once - least > max(later.LEAST_USD, later.MARGIN * at_once) * (1 + 1e-6):
        assert found is not None
        assert abs(found.saves_usd - (at_once - least)) <= 1e-6 * at_once
    elif found is not None:
        assert found.saves_usd >= later.MARGIN * at_once * (1 - 1e-6)
