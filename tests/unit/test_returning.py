"""Jobs with time to spare wait for spot machines that have gone, and no longer than they can."""

import pytest
from msgspec.structs import replace
from stories import MARKET, Teller, job, sent
from test_deadline import Cloud

from hyperion.control import messages as m
from hyperion.control import returning
from hyperion.control.federation import Federation
from hyperion.control.returning import Returning
from hyperion.model.cluster import Cluster, ClusterLoad
from hyperion.model.ids import ClusterId
from hyperion.model.job import Checkpoint, Objective
from hyperion.model.market import Market
from hyperion.placement.choice import FleetCluster
from hyperion.placement.deadline import Slack, spare_s

HOUR_MS = 3_600_000
SAVES = Checkpoint(every_s=600.0)


class Clouds:
    """A cluster of spot machines that have just gone, and one of dearer ones that stay."""

    def __init__(self, gone_h=0.0):
        self.shapes = Cloud(job(), [], [False])
        self.teller = Teller(Federation(MARKET, "balanced"))
        for id in ("spot", "steady"):
            cluster = Cluster(id=ClusterId(id), region="aws/us-east-1")
            hello = m.ClusterHello(cluster=cluster, load=self.shapes.load(id), jobs=())
            self.teller.say(m.ClusterAttached(hello=hello))
        self.beat(there=False)
        self.wait(gone_h, there=False)

    def beat(self, there):
        commands = []
        for id in ("spot", "steady"):
            load = self.shapes.load(id, there or id != "spot")
            beat = m.ClusterHeartbeat(sequence=1, load=load)
            commands += self.teller.say(m.ClusterHeard(cluster=ClusterId(id), heartbeat=beat))
        return commands

    def wait(self, hours, there):
        """Until then, or until something is placed: where, and after how many hours."""
        began_ms = self.teller.now_ms
        while self.teller.now_ms - began_ms < hours * HOUR_MS:
            commands = self.teller.wait(10_000, step_ms=5000) + self.beat(there)
            places = [c.cluster for c in commands if sent([c], m.PlaceJob)]
            if places:
                return places[0], (self.teller.now_ms - began_ms) / HOUR_MS
        return None, hours

    def submit(self, **more):
        facts = {"expected_s": 3600.0, "deadline_s": 6 * 3600.0, "checkpoint": SAVES, **more}
        commands = self.teller.say(m.JobSubmitted(job=job(**facts), token=1))
        return [c.cluster for c in commands if sent([c], m.PlaceJob)]

    @property
    def reason(self):
        [known] = self.teller.machine.state.jobs.values()
        return known.status.reason


def test_it_waits_and_goes_there_when_they_are_back():
    c = Clouds()
    assert c.submit() == []
    assert c.reason.startswith("waits for spot machines in spot until 1970-01-01 0")
    assert "would save $" in c.reason
    assert c.wait(1, there=False) == (None, 1)
    place, hours = c.wait(1, there=True)
    assert place == "spot"
    assert hours < 0.05


def test_it_waits_no_longer_than_for_half_of_the_time_that_it_has():
    """After that they would be expected to be gone until it is too late."""
    c = Clouds()
    c.submit()
    said = c.reason
    wished = job(expected_s=3600.0, checkpoint=SAVES)
    wished = replace(wished, deadline_s=6 * 3600.0)
    has_h = spare_s(wished, Slack(6 * 3600.0), Market.SPOT) / 3600
    place, hours = c.wait(24, there=False)
    assert place == "steady"
    assert hours == pytest.approx(has_h / 2, abs=0.05)
    assert f"{int((1000 / 60 + 60 * hours) // 60):02}:" in said


def test_an_order_to_start_now_no_deadline_and_little_gain_start_at_once():
    for more in (
        {"start_now": True},
        {"deadline_s": 0.0},
        {"expected_s": 0.0},
        {"deadline_s": 4000},
    ):
        assert Clouds().submit(**more) == ["steady"], more
    assert Clouds().submit(objective=Objective(cost=0.0)) == ["steady"]


def test_what_has_been_gone_for_longer_than_there_is_time_is_not_waited_for():
    assert Clouds(gone_h=2).submit() == []
    assert Clouds(gone_h=5).submit() == ["steady"]


def test_plan_says_what_would_happen():
    c = Clouds()
    wished = job(expected_s=3600.0, deadline_s=6 * 3600.0, checkpoint=SAVES)
    assert c.teller.machine.plan(wished).sentence.startswith("waits for spot machines in spot")


def fleet(*loads):
    return [
        FleetCluster(cluster=Cluster(id=ClusterId(f"c{n}"), region="r"), load=load)
        for n, load in enumerate(loads)
    ]


def test_only_spot_machines_that_were_there_are_remembered_and_not_for_ever():
    shapes = Cloud(job(), [], [False])
    seen, empty = Returning(), ClusterLoad()
    seen.note(ClusterId("c0"), shapes.load("spot"), 1)
    seen.note(ClusterId("c1"), shapes.load("steady"), 1)
    assert not seen
    for id in ("c0", "c1"):
        seen.note(ClusterId(id), empty, 5)
    [(member, gone_ms)] = seen.fleet(fleet(empty, empty))
    assert (member.cluster.id, gone_ms) == ("c0", 5)
    assert member.load.shapes[0].free_gpus_milli == 4 * 8000
    seen.note(ClusterId("c0"), empty, 5 + returning.KEPT_MS)
    assert not seen
    seen.note(ClusterId("c0"), shapes.load("spot"), 9)
    seen.note(ClusterId("c0"), empty, 10)
    seen.drop(ClusterId("c0"))
    assert not seen


@pytest.mark.parametrize("reachable", [True, False])
def test_a_cluster_that_is_away_is_not_waited_for(reachable):
    shapes = Cloud(job(), [], [False])
    seen = Returning()
    seen.note(ClusterId("c0"), shapes.load("spot"), 1)
    seen.note(ClusterId("c0"), ClusterLoad(), 2)
    away = FleetCluster(
        cluster=Cluster(id=ClusterId("c0"), region="r"), load=ClusterLoad(), reachable=reachable
    )
    assert bool(list(seen.fleet([away]))) is reachable
