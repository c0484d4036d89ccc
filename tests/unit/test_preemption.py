"""Victims: who they are, who they cannot be, and that nobody is stopped in vain."""

import pytest
from msgspec.structs import replace

from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.constraints import Packing
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
from hyperion.model.job import Job, Priority, Role
from hyperion.model.node import Node
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement import bounds, cheapest, preemption, running
from hyperion.placement import snapshot as columns
from hyperion.placement.consolidation import MoveBudget, consolidation
from hyperion.placement.planner import Plan, plan
from hyperion.placement.preemption import (
    Eviction,
    NoVictims,
    Obstacle,
    Rights,
    Spared,
    regret_usd,
    victims,
)
from hyperion.placement.ranking import BUILT_IN
from hyperion.placement.regret import NEVER
from hyperion.placement.running import Occupant, Running, Width

HOUR_MS = 3_600_000
NOW_MS = 10 * HOUR_MS
BALANCED = BUILT_IN["balanced"]
URGENT = Rights(priority=Priority.LATENCY_CRITICAL)


class World:
    """Nodes of 8 GPUs and 64 CPUs, and what runs on them."""

    def __init__(self, nodes=1, gpus=8, **labels):
        self.snapshot = columns.empty()
        self.running = Running()
        for n in range(nodes):
            capacity = Capacity(
                gpus=gpus, gpu_type="A100", cpus_milli=64 * MILLI, memory_mib=65_536
            )
            own = {key: values[n] for key, values in labels.items()}
            self.snapshot.add_node(Node(id=NodeId(f"n{n}"), capacity=capacity, labels=own))

    def run(self, name, *seats, gpus=1, cpus=1, leaving=(), **facts):
        """Seats are (node, devices…); the job has run since it was 9 o'clock."""
        facts = {
            "queue": QueueName("q"),
            "priority": Priority.BATCH,
            "started_at_ms": 9 * HOUR_MS,
            **facts,
        }
        self.running.put(Occupant(job=JobId(name), **facts))
        for rank, (node, *devices) in enumerate(seats):
            a = Allocation(
                id=AllocationId(f"{name}.{rank}"),
                job=JobId(name),
                rank=rank,
                node=NodeId(f"n{node}"),
                request=ResourceRequest(gpus_milli=int(gpus * MILLI), cpus_milli=cpus * MILLI),
                devices=tuple(devices),
                state=AllocationState.STOPPING if rank in leaving else AllocationState.RUNNING,
            )
            self.snapshot.hold(a)
            self.running.seat(a)
        return self

    def victims(self, wish, rights=URGENT):
        before = [self.snapshot._facts(id) for id in self.snapshot.row]
        found = victims(self.snapshot, self.running, wish, BALANCED, rights, None, NOW_MS)
        assert [self.snapshot._facts(id) for id in self.snapshot.row] == before
        return found


def wish(gpus=1, cpus=1, replicas=1, priority=Priority.LATENCY_CRITICAL, **more):
    request = ResourceRequest(gpus_milli=int(gpus * MILLI), cpus_milli=cpus * MILLI)
    return Job(
        id=JobId("urgent"),
        priority=priority,
        replicas=replicas,
        alternatives=(request,),
        **more,
    )


# -- regret ---------------------------------------------------------------------------------------


def occupant(**facts):
    facts = {"usd_per_hour": 6.0, "started_at_ms": 9 * HOUR_MS, **facts}
    return Occupant(job=JobId("j"), queue=QueueName("q"), priority=Priority.BATCH, **facts)


@pytest.mark.parametrize(
    ("facts", "usd"),
    [
        ({}, 6.0),
        ({"saves_every_ms": HOUR_MS // 4 * 3}, 1.5),
        ({"saves_every_ms": HOUR_MS // 2}, 0.0),
        ({"saves_on_stop": True}, 0.0),
        ({"saves_on_stop": True, "restore_ms": HOUR_MS // 10, "egress_usd": 0.25}, 0.85),
        ({"started_at_ms": NOW_MS + 1}, 0.0),
        ({"usd_per_hour": 0.0}, 2 * 1.0 + 10 * 0.04),
        ({"preemptible_at_ms": NOW_MS + 1}, NEVER),
        ({"preemptible_at_ms": NOW_MS}, 6.0),
        ({"stopping": True}, NEVER),
    ],
)
def test_regret_is_the_work_lost_the_way_back_and_the_egress(facts, usd):
    width = Width(replicas=2, gpus_milli=2 * MILLI, cpus_milli=10 * MILLI)
    assert regret_usd(occupant(**facts), width, NOW_MS) == pytest.approx(usd)


# -- one replica ----------------------------------------------------------------------------------


def test_of_many_that_cost_nearly_the_same_few_are_looked_at_as_time_goes_by(monkeypatch):
    """A bound that did not grow with the regrets would have every node looked at."""
    pytest.importorskip("numba", reason="bounds are kept by the compiled kernel")
    from hyperion.placement.bounds_numba import compiled_bounds

    world, nodes, looked = World(nodes=60), 60, []
    for n in range(nodes):
        world.run(f"j{n}", (n, *range(8)), gpus=8, started_at_ms=9 * HOUR_MS + 7 * n)

    def counted(*given):
        looked.append(given[1])
        return cheapest.cheapest(*given)

    monkeypatch.setattr(preemption, "cheapest", counted)
    bounds.use(compiled_bounds)
    try:
        for minute in range(5):
            looked.clear()
            at_ms = NOW_MS + 60_000 * minute
            found = victims(world.snapshot, world.running, wish(), BALANCED, URGENT, None, at_ms)
            assert found.victims == (JobId("j59"),)
            assert len(looked) <= 2
    finally:
        bounds.use(bounds.numpy_bounds)


def test_the_ledger_is_brought_up_to_date_ahead_of_a_search():
    world = World(nodes=2)
    world.run("a", (0, 0))
    world.running.settle_ahead()
    assert world.running.ledger.has(AllocationId("a.0"))


def test_while_very_much_changes_that_is_left_to_the_search(monkeypatch):
    monkeypatch.setattr(running, "FEW_CHANGES", 1)
    world = World(nodes=2)
    world.run("a", (0, 0))
    world.running.settle_ahead()
    assert not world.running.ledger.has(AllocationId("a.0"))
    world.running.settle_ahead()  # a second in which nothing has changed
    assert world.running.ledger.has(AllocationId("a.0"))


def test_the_job_that_loses_least_work_is_stopped():
    world = World(nodes=2)
    world.run("old", (0, *range(8)), gpus=8, usd_per_hour=8.0)
    world.run("saved", (1, *range(8)), gpus=8, usd_per_hour=8.0, saves_every_ms=HOUR_MS // 7)
    found = world.victims(wish(gpus=4))
    assert isinstance(found, Eviction)
    assert found.victims == (JobId("saved"),)
    assert found.plan.seats[0].node == "n1"
    assert found.regret_usd == pytest.approx(0.0, abs=1e-4)


def test_several_cheap_jobs_are_stopped_rather_than_a_dear_one():
    world = World()
    for n in range(4):
        world.run(f"small{n}", (0, n), usd_per_hour=1.0)
    world.run("large", (0, 4, 5, 6, 7), gpus=4, usd_per_hour=4.5)
    found = world.victims(wish(gpus=4))
    assert sorted(found.victims) == ["small0", "small1", "small2", "small3"]
    assert found.regret_usd == pytest.approx(4.0)
    assert found.plan.seats[0].devices == (0, 1, 2, 3)


def test_what_is_free_is_used_first():
    world = World()
    world.run("a", (0, 0, 1, 2), gpus=3, usd_per_hour=9.0)
    world.run("b", (0, 3), usd_per_hour=1.0)
    world.run("c", (0, 4), usd_per_hour=2.0)
    found = world.victims(wish(gpus=4))  # 3 are free
    assert found.victims == (JobId("b"),)


def test_nobody_is_stopped_when_it_fits():
    found = World().run("a", (0, 0)).victims(wish(gpus=7))
    assert found == NoVictims(JobId("urgent"), Obstacle.FITS)


def test_what_is_being_stopped_is_waited_for():
    world = World().run("a", (0, 0, 1, 2, 3), gpus=4, stopping=True)
    world.run("b", (0, 4, 5, 6, 7), gpus=4)
    waits = world.victims(wish(gpus=4))
    assert waits.reason is Obstacle.WAIT
    assert waits.plan.seats[0].devices == (0, 1, 2, 3)
    found = world.victims(wish(gpus=6))  # not enough: but what it gives is counted
    assert found.victims == (JobId("b"),)


def test_a_claim_on_freed_places_is_not_taken_from_again():
    """Storms: the second job cannot count on what the first is waiting for."""
    world = World(nodes=2).run("a", (0, *range(8)), gpus=8, usd_per_hour=1.0)
    world.run("b", (1, *range(8)), gpus=8, usd_per_hour=5.0)
    first = world.victims(wish(gpus=8))
    assert first.victims == (JobId("a"),)
    world.running.put(replace(world.running.occupants[JobId("a")], stopping=True))
    claim = Allocation(
        id=AllocationId("claim"),
        job=JobId("urgent"),
        rank=0,
        node=first.plan.seats[0].node,
        request=wish(gpus=8).alternatives[0],
        devices=first.plan.seats[0].devices,
    )
    world.snapshot.hold(claim)
    assert world.victims(wish(gpus=8)).victims == (JobId("b"),)


def test_shares_of_a_gpu_are_gathered_on_one_device():
    world = World(gpus=2)
    world.run("a", (0, 0), gpus=0.5, usd_per_hour=1.0)
    world.run("b", (0, 0), gpus=0.5, usd_per_hour=1.0)
    world.run("c", (0, 1), gpus=0.9, usd_per_hour=5.0)
    assert sorted(world.victims(wish(gpus=1)).victims) == ["a", "b"]
    assert world.victims(wish(gpus=0.5)).victims == (JobId("a"),)


def test_cpus_are_made_room_for_as_well():
    world = World(gpus=0)
    for n in range(8):
        world.run(f"j{n}", (0,), gpus=0, cpus=8, usd_per_hour=1.0 + n)
    found = world.victims(wish(gpus=0, cpus=20))
    assert sorted(found.victims) == ["j0", "j1", "j2"]


def test_a_job_is_stopped_whole_and_costs_whole():
    world = World(nodes=2)
    world.run("gang", (0, *range(8)), (1, 0, 1, 2, 3), gpus=4, usd_per_hour=3.0)
    world.run("alone", (1, 4, 5, 6, 7), gpus=4, usd_per_hour=2.0)
    assert world.victims(wish(gpus=4)).victims == (JobId("alone"),)


# -- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "of", "may"),
    [
        (Priority.BATCH, Priority.BATCH, False),
        (Priority.LATENCY_CRITICAL, Priority.BATCH, True),
        (Priority.LATENCY_CRITICAL, Priority.LATENCY_CRITICAL, False),
        (Priority.ULTRA_LOW_LATENCY, Priority.LATENCY_CRITICAL, True),
        (Priority.ULTRA_LOW_LATENCY, Priority.ULTRA_LOW_LATENCY, False),
        (Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY, False),
    ],
)
def test_a_higher_class_takes_from_lower_ones_only(by, of, may):
    world = World().run("a", (0, *range(8)), gpus=8, priority=of)
    found = world.victims(wish(), Rights(priority=by))
    assert isinstance(found, Eviction) == may
    if not may:
        assert found.reason is Obstacle.RIGHTS
        assert found.counts == {Spared.RIGHTS: 1}


def test_a_job_keeps_its_place_for_its_least_runtime():
    world = World().run("a", (0, *range(8)), gpus=8, preemptible_at_ms=NOW_MS + 1)
    assert world.victims(wish()).counts == {Spared.EARLY: 1}


def test_nicer_jobs_of_the_queue_make_way_if_the_queue_says_so():
    world = World().run("a", (0, *range(8)), gpus=8, nice=5)
    mine = Rights(queue=QueueName("q"), nice=4, within=True)
    assert world.victims(wish(), mine).victims == (JobId("a"),)
    for rights in (
        replace(mine, within=False),
        replace(mine, nice=5),
        replace(mine, queue=QueueName("other")),
    ):
        assert isinstance(world.victims(wish(), rights), NoVictims)


def test_a_lender_takes_back_no_more_than_was_borrowed():
    world = World(nodes=2)
    for n in range(4):
        world.run(f"b{n}", (n // 2, *range(n % 2 * 4, n % 2 * 4 + 4)), gpus=4, usd_per_hour=1.0 + n)
    lent = (("cpus_milli", 9_000), ("gpus_milli", 4 * MILLI))
    rights = Rights(queue=QueueName("mine"), borrowed=((QueueName("q"), lent),))
    assert world.victims(wish(gpus=4), rights).victims == (JobId("b0"),)
    refused = world.victims(wish(gpus=8), rights)  # would take 8 of the 4 borrowed
    assert refused.reason is Obstacle.NOWHERE


def test_quota_that_is_owed_is_paid_back_though_there_is_room():
    world = World().run("b0", (0, 0), usd_per_hour=2.0).run("b1", (0, 1), usd_per_hour=1.0)
    rights = Rights(
        queue=QueueName("mine"),
        borrowed=((QueueName("q"), (("gpus_milli", 2 * MILLI),)),),
        owed=(("gpus_milli", MILLI),),
    )
    found = world.victims(wish(gpus=2), rights)
    assert found.victims == (JobId("b1"),)
    too_much = replace(rights, owed=(("gpus_milli", 3 * MILLI),))
    assert world.victims(wish(gpus=2), too_much).reason is Obstacle.NOWHERE  # nobody in vain


def test_a_job_that_is_partly_its_queues_own_goes_only_if_nothing_else_pays():
    world = World(nodes=2).run("gang", (0, *range(8)), gpus=8, usd_per_hour=1.0)
    world.run("small", (1, 0), usd_per_hour=9.0)
    owes = {"queue": QueueName("mine"), "borrowed": ((QueueName("q"), (("gpus_milli", 1000),)),)}
    little = Rights(**owes, owed=(("gpus_milli", 1000),))
    assert world.victims(wish(gpus=1), little).victims == (JobId("small"),)
    much = Rights(**owes, owed=(("gpus_milli", 4000),))
    assert world.victims(wish(gpus=4), much).victims == (JobId("gang"),)


def test_quota_is_paid_back_by_few_and_by_those_that_pay_most_for_their_regret():
    world = World().run("small", (0, 0), usd_per_hour=1.0)
    world.run("large", (0, 1, 2, 3, 4), gpus=4, usd_per_hour=2.0)
    rights = Rights(
        queue=QueueName("mine"),
        borrowed=((QueueName("q"), (("gpus_milli", 5 * MILLI),)),),
        owed=(("gpus_milli", 4 * MILLI),),
    )
    assert world.victims(wish(gpus=3), rights).victims == (JobId("large"),)


# -- elastic jobs and arrays ----------------------------------------------------------------------


def test_an_elastic_job_gives_up_its_last_ranks():
    world = World(nodes=2)
    world.run("wide", (0, *range(4)), (0, 4, 5, 6, 7), (1, *range(4)), gpus=4, least=1,
              usd_per_hour=3.0)  # fmt: skip
    world.run("other", (1, 4, 5, 6, 7), gpus=4, usd_per_hour=9.0)
    found = world.victims(wish(gpus=4))
    assert found.shrink == ((JobId("wide"), 2),)
    assert found.victims == ()
    assert found.regret_usd == pytest.approx(1.0)
    assert found.plan.seats[0].node == "n1"


def test_below_its_least_width_it_stops_whole():
    world = World().run("wide", (0, *range(4)), (0, 4, 5, 6, 7), gpus=4, least=1, usd_per_hour=2.0)
    assert world.victims(wish(gpus=4)).shrink == ((JobId("wide"), 1),)
    assert world.victims(wish(gpus=8)).victims == (JobId("wide"),)


def test_a_task_of_an_array_is_stopped_alone():
    world = World().run("sweep", *((0, n) for n in range(8)), array=True, usd_per_hour=1.0)
    found = world.victims(wish(gpus=2))
    assert found.tasks == ((JobId("sweep"), 0), (JobId("sweep"), 1))
    assert found.victims == ()
    assert found.regret_usd == pytest.approx(2.0)


# -- gangs ----------------------------------------------------------------------------------------


def test_a_gang_gets_all_its_places_or_none():
    world = World(nodes=3)
    for n in range(3):
        world.run(f"b{n}", (n, *range(8)), gpus=8, usd_per_hour=1.0 + n)
    found = world.victims(wish(gpus=8, replicas=2))
    assert sorted(found.victims) == ["b0", "b1"]
    assert {seat.node for seat in found.plan.seats} == {"n0", "n1"}
    assert world.victims(wish(gpus=8, replicas=4)).reason is Obstacle.NOWHERE


def test_one_gang_may_be_the_cheapest_way_for_another():
    world = World(nodes=4)
    world.run("gang", *((n, *range(8)) for n in range(3)), gpus=8, usd_per_hour=2.5)
    world.run("alone", (3, *range(8)), gpus=8, usd_per_hour=1.0)
    assert world.victims(wish(gpus=8)).victims == (JobId("alone"),)
    assert world.victims(wish(gpus=8, replicas=3)).victims == (JobId("gang"),)


def test_a_packed_gang_takes_one_rack():
    racks = ["a", "b", "a", "b"]
    world = World(nodes=4, rack=racks)
    for n in range(4):
        world.run(f"b{n}", (n, *range(8)), gpus=8, usd_per_hour=(1.0, 2.0, 5.0, 2.0)[n])
    found = world.victims(wish(gpus=8, replicas=2))
    assert JobId("b0") in found.victims
    packed = wish(gpus=8, replicas=2, packing=Packing("rack"))
    found = world.victims(packed)
    assert isinstance(found, Eviction)


def test_roles_get_what_each_needs():
    """Eight GPUs for the learner, two for each actor."""
    world = World(nodes=2)
    world.run("a", (0, *range(8)), gpus=8, usd_per_hour=1.0)
    world.run("b", (1, 0, 1, 2, 3), gpus=4, usd_per_hour=1.0)
    world.run("c", (1, 4, 5, 6, 7), gpus=4, usd_per_hour=3.0)
    large, small = wish(gpus=8).alternatives[0], wish(gpus=2).alternatives[0]
    roles = (Role(name="learner", resources=large), Role(name="actor", replicas=2, resources=small))
    found = world.victims(wish(gpus=8, replicas=3, roles=roles))
    assert isinstance(found, Eviction | NoVictims)


def test_the_plan_is_what_the_planner_would_do():
    world = World(nodes=2)
    world.run("a", (0, *range(8)), gpus=8, usd_per_hour=1.0)
    world.run("b", (1, *range(8)), gpus=8, usd_per_hour=2.0)
    found = world.victims(wish(gpus=8))
    for seat in list(world.running.seats(JobId("a"))):
        world.snapshot.drop(seat)
    assert plan(world.snapshot, wish(gpus=8), BALANCED) == found.plan
    assert isinstance(found.plan, Plan)


# -- consolidation --------------------------------------------------------------------------------


def moves_of(world, job, gain_usd=100.0, moves=8):
    def job_of(id):
        seats = sorted(world.running.seats(id), key=lambda s: s.rank)
        return Job(id=id, replicas=len(seats), alternatives=(seats[0].request,))

    before = [world.snapshot._facts(id) for id in world.snapshot.row]
    budget = MoveBudget(gain_usd, moves)
    found = consolidation(
        world.snapshot, world.running, job, BALANCED, Rights(), None, NOW_MS, budget, job_of
    )
    assert [world.snapshot._facts(id) for id in world.snapshot.row] == before
    return found


def in_pieces():
    """Four nodes, each with a job of two GPUs; of 32 GPUs 24 are free, yet nowhere eight."""
    world = World(nodes=4)
    for n in range(4):
        world.run(f"small{n}", (n, 0, 1), gpus=2, usd_per_hour=1.0 + n)
    return world


def test_cheap_jobs_are_moved_together_for_a_gang():
    found = moves_of(in_pieces(), wish(gpus=8, replicas=2, priority=Priority.BATCH))
    assert sorted(found.victims) == ["small0", "small1"]
    assert [p.job for p in found.moves] == list(found.victims)
    assert {seat.node for seat in found.plan.seats} == {"n0", "n1"}
    assert {seat.node for p in found.moves for seat in p.seats} <= {"n2", "n3"}
    assert found.regret_usd == pytest.approx(3.0)


def test_nothing_is_moved_that_is_not_worth_it():
    gang = wish(gpus=8, replicas=2, priority=Priority.BATCH)
    assert moves_of(in_pieces(), gang, gain_usd=2.9) is None
    assert moves_of(in_pieces(), gang, moves=1) is None
    assert moves_of(in_pieces(), wish(gpus=6, priority=Priority.BATCH)) is None, "it fits"
    four = wish(gpus=8, replicas=4, priority=Priority.BATCH)
    assert moves_of(in_pieces(), four) is None, "not even in sum"


def test_who_would_have_no_place_is_not_moved():
    world = World(nodes=3)
    world.run("large", (0, *range(7)), gpus=7, usd_per_hour=0.1)
    world.run("small", (1, 0, 1), gpus=2, usd_per_hour=5.0)
    world.run("other", (2, *range(6)), gpus=6, usd_per_hour=9.0)
    found = moves_of(world, wish(gpus=8, priority=Priority.BATCH))
    assert found.victims == (JobId("small"),)


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("state", [AllocationState.PLACED, AllocationState.STOPPING])
def test_a_job_and_its_first_seat_at_once_are_as_one_after_the_other(stopping, state):
    def seat(name):
        return Allocation(
            id=AllocationId(f"{name}.0"),
            job=JobId(name),
            rank=0,
            node=NodeId("n0"),
            request=ResourceRequest(gpus_milli=2000, cpus_milli=3000),
            devices=(0, 1),
            state=state,
        )

    two_steps, one_step = Running(), Running()
    for name in ("a", "b"):
        facts = Occupant(
            job=JobId(name), queue=QueueName("q"), priority=Priority.BATCH, stopping=stopping
        )
        two_steps.put(facts)
        two_steps.seat(seat(name))
        one_step.begin(facts, seat(name))
    for each in (two_steps, one_step):
        each.settle()
    one, two = vars(one_step), vars(two_steps)
    assert {k: v for k, v in one.items() if k != "ledger"} == {
        k: v for k, v in two.items() if k != "ledger"
    }
    assert one["ledger"].seats.tolist() == two["ledger"].seats.tolist()
    assert one["ledger"].terms.tolist() == two["ledger"].terms.tolist()
