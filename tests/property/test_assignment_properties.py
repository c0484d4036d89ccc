"""What places for jobs that wait together must never break, over random fleets and jobs."""

import math
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import DataSource, Job, Role
from hyperion.model.market import MarketView, Region
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.assignment import Batch, Contest, Likes, by_regret, cost, holds
from hyperion.placement.choice import FleetCluster, asked_in_all, rank, shape_key
from hyperion.placement.optimal import Optimal
from hyperion.placement.ranking import policy
from hyperion.placement.rooms import RoomColumns, Rooms

LAW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
REGIONS = tuple(f"aws/r{n}" for n in range(4))
MARKET = MarketView(
    as_of="",
    regions={
        r: Region(name=r, cloud="aws", carbon_g_per_kwh=100 * n) for n, r in enumerate(REGIONS)
    },
    internet_egress={"aws": 0.09},
)
BALANCED = policy("balanced")
SMALL = ResourceRequest(cpus_milli=2000)


@st.composite
def shapes(draw):
    gpus, nodes = draw(st.sampled_from((0, 4, 8))), draw(st.integers(1, 3))
    capacity = Capacity(
        gpus=gpus, gpu_type="A100" if gpus else "", cpus_milli=16_000, memory_mib=65_536
    )
    return Shape(
        capacity=capacity,
        nodes=nodes,
        usd_per_hour=draw(st.integers(1, 40)) / 2,
        free_cpus_milli=draw(st.integers(0, nodes)) * 16_000,
        free_gpus_milli=draw(st.integers(0, nodes)) * 1000 * gpus,
        free_memory_mib=nodes * 65_536,
    )


@st.composite
def fleets(draw, most=4, shapes_each=2):
    return tuple(
        FleetCluster(
            cluster=Cluster(id=ClusterId(f"c{n}"), region=REGIONS[n % len(REGIONS)]),
            load=ClusterLoad(
                shapes=tuple(draw(st.lists(shapes(), min_size=1, max_size=shapes_each)))
            ),
            committed_cpus_milli=draw(st.sampled_from((0, 8000, 64_000))),
        )
        for n in range(draw(st.integers(1, most)))
    )


requests = st.builds(
    ResourceRequest,
    gpus_milli=st.sampled_from((0, 500, 1000, 4000, 8000)),
    cpus_milli=st.sampled_from((0, 1000, 4000, 16_000)),
    memory_mib=st.sampled_from((0, 16_384)),
)
sources = st.builds(
    DataSource, st.just("s3://d"), st.sampled_from((10, 200)), st.sampled_from(REGIONS)
)


@st.composite
def jobs(draw, plain=False, most=2):
    most = 1 if plain else most
    alternatives = tuple(draw(st.lists(requests, min_size=1, max_size=most)))
    roles = ()
    if not plain and draw(st.integers(0, 5)) == 0:
        roles = (
            Role(name="a", replicas=1, resources=alternatives[0]),
            Role(name="b", replicas=draw(st.integers(1, 3)), resources=SMALL),
        )
    return Job(
        id=JobId(f"j{draw(st.integers(0, 10**9))}"),
        command=("true",),
        alternatives=alternatives,
        roles=roles,
        replicas=sum(r.replicas for r in roles) or draw(st.integers(1, 1 if plain else 3)),
        expected_s=draw(st.sampled_from((1800, 36_000))),
        data=tuple(draw(st.lists(sources, max_size=1))),
    )


def committed(member, job):
    asked = asked_in_all(job)
    return replace(
        member,
        committed_gpus_milli=member.committed_gpus_milli + asked.gpus,
        committed_cpus_milli=member.committed_cpus_milli + asked.cpus_milli,
        committed_memory_mib=member.committed_memory_mib + asked.memory_mib,
    )


def with_room(job, fleet):
    return [p for p in rank(job, fleet, MARKET, BALANCED) if p.refusal is None and p.has_room]


def one_by_one(fleet, waiting):
    """(the chosen places of those that find room in turn, until the first that does not)."""
    found, members = [], {m.cluster.id: m for m in fleet}
    for job in waiting:
        open_to = with_room(job, tuple(members.values()))
        if not open_to:
            break
        found.append(open_to[0])
        id = ClusterId(open_to[0].cluster)
        members[id] = committed(members[id], job)
    return found


def batch_of(fleet, waiting):
    batch = Batch(fleet)
    for job in waiting:
        key = shape_key(job)
        if not batch.knows(key):
            batch.meet(key, job, rank(job, fleet, MARKET, BALANCED))
        if not batch.take(key):
            break
    return batch


def table(fleet, waiting):
    """(the likes, counted once a job, and the rooms)."""
    rooms = Rooms(fleet)
    columns = {str(m.cluster.id): n for n, m in enumerate(fleet)}
    found = {}
    for job in waiting:
        key = shape_key(job)
        if key not in found:
            found[key] = Likes(job, rank(job, fleet, MARKET, BALANCED), rooms, columns)
        found[key].count += 1
    return list(found.values()), rooms


crowds = st.lists(jobs(), min_size=1, max_size=8)


@LAW
@given(fleets(), st.lists(jobs(most=1), min_size=1, max_size=8))
def test_the_batch_holds_just_those_who_find_room_one_by_one(fleet, waiting):
    seats = list(batch_of(fleet, waiting).settle())
    assert len(seats) == len(one_by_one(fleet, waiting))


@LAW
@given(fleets(), crowds)
def test_with_alternatives_it_may_end_sooner_never_later(fleet, waiting):
    """A dearer way of running in a cluster shows only once the cheaper one has no room there."""
    seats = list(batch_of(fleet, waiting).settle())
    assert len(seats) <= len(one_by_one(fleet, waiting))


@LAW
@given(fleets(), crowds)
def test_together_they_never_cost_more_than_one_by_one(fleet, waiting):
    alone = one_by_one(fleet, waiting)
    seats = list(batch_of(fleet, waiting).settle())
    together = math.fsum(seat.chosen.cost for seat in seats)
    assert together <= math.fsum(place.cost for place in alone[: len(seats)]) + 1e-6


@LAW
@given(fleets(), crowds)
def test_everybody_has_room_where_they_are_sent(fleet, waiting):
    """In some order: a cluster is given no more than its free sums admit."""
    seats = list(batch_of(fleet, waiting).settle())
    for member in fleet:
        there = [
            (job, seat.chosen.alternative)
            for job, seat in zip(waiting, seats, strict=False)
            if seat.chosen.cluster == member.cluster.id
        ]
        assert fits(member, there), f"some of those sent to {member.cluster.id} find no room"


def fits(member, there):
    """Whether there is an order in which each finds room when its turn comes."""
    if not there:
        return True
    return any(
        alternative in {p.alternative for p in with_room(job, (member,))}
        and fits(committed(member, job), there[:n] + there[n + 1 :])
        for n, (job, alternative) in enumerate(there)
    )


@LAW
@given(fleets(), crowds)
def test_rooms_say_what_a_new_ranking_would(fleet, waiting):
    likes, rooms = table(fleet, waiting)
    members, alike = list(fleet), {shape_key(job): job for job in waiting}
    for each, job in zip(likes, alike.values(), strict=True):
        if each.options:
            cluster = each.options[-1].cluster
            rooms.take(cluster, each.asked)
            members[cluster] = committed(members[cluster], job)
    columns = RoomColumns(rooms)
    for each, job in zip(likes, alike.values(), strict=True):
        now = {(p.cluster, p.alternative) for p in with_room(job, tuple(members))}
        for option in each.options:
            place = each.places[option.place]
            told = rooms.has_room(option.way, option.cluster)
            assert told == ((place.cluster, place.alternative) in now)
            assert columns.open(option.cluster)[option.way] == told


@LAW
@given(fleets(3, shapes_each=1), st.lists(jobs(plain=True), min_size=1, max_size=5))
def test_what_regret_finds_holds_and_is_no_better_than_the_best(fleet, waiting):
    likes, rooms = table(fleet, waiting)
    found = by_regret(likes, rooms)
    best = brute_force(likes, rooms)
    if found is not None:
        assert holds(likes, rooms, found)
        assert cost(likes, found) >= best - 1e-6


def brute_force(likes, rooms):
    """The least sum of costs of all ways that hold; infinite where there is none."""
    whose = [n for n, each in enumerate(likes) for _ in range(each.count)]
    least = math.inf
    for options in product(*(range(len(likes[n].options)) for n in whose)):
        tried = [[] for _ in likes]
        for n, at in zip(whose, options, strict=True):
            tried[n].append(at)
        if holds(likes, rooms, tried):
            least = min(least, cost(likes, tried))
    return least


# -- the exact policy ------------------------------------------------------------------------------


@LAW
@given(fleets(3, shapes_each=1), st.lists(jobs(plain=True), min_size=2, max_size=5))
def test_the_optimum_is_that_of_brute_force(fleet, waiting):
    pytest.importorskip("highspy", reason="the extra optimal is not installed")
    likes, rooms = table(fleet, waiting)
    least = brute_force(likes, rooms)
    start = by_regret(likes, rooms)
    if start is not None:
        found = Optimal(limit_ms=60_000).assign(Contest(likes, rooms, start))
        assert holds(likes, rooms, found)
        assert cost(likes, found) == pytest.approx(least, abs=1e-4)


@LAW
@given(fleets(), crowds)
def test_the_optimum_never_costs_more_than_regret(fleet, waiting):
    pytest.importorskip("highspy", reason="the extra optimal is not installed")
    greedy = math.fsum(seat.chosen.cost for seat in batch_of(fleet, waiting).settle())
    seats = list(batch_of(fleet, waiting).settle(Optimal(limit_ms=60_000).assign))
    assert math.fsum(seat.chosen.cost for seat in seats) <= greedy + 1e-6
    for member in fleet:
        there = [
            (job, seat.chosen.alternative)
            for job, seat in zip(waiting, seats, strict=False)
            if seat.chosen.cluster == member.cluster.id
        ]
        assert fits(member, there)
