"""The laws of placement, each at the smallest function that owns it."""

from collections import Counter

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import DataSource, Job, Objective, Toleration
from hyperion.model.market import Market, MarketView, Region
from hyperion.model.node import Node, Taint
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement import snapshot as columns
from hyperion.placement.objective import price, shares, spent
from hyperion.placement.planner import Plan, Unplaceable, plan, plan_round
from hyperion.placement.ranking import BUILT_IN

LAW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

POLICIES = st.sampled_from([BUILT_IN[name] for name in sorted(BUILT_IN)])
TAINTS = (Taint("gpu"), Taint("team", "red"), Taint("team", "blue"))


@st.composite
def nodes(draw, n):
    gpus = draw(st.sampled_from([0, 0, 1, 2, 4, 8]))
    return Node(
        id=NodeId(f"n{n}"),
        capacity=Capacity(
            gpus=gpus,
            gpu_type=draw(st.sampled_from(["A100", "H100"])) if gpus else "",
            cpus_milli=draw(st.sampled_from([2000, 4000, 16_000])),
            memory_mib=draw(st.sampled_from([4096, 16_384])),
            disk_mib=draw(st.sampled_from([10_000, 50_000])),
        ),
        labels=draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b", "fast": "yes"}])),
        taints=tuple(draw(st.lists(st.sampled_from(TAINTS), max_size=2, unique=True))),
        market=draw(st.sampled_from(list(Market))),
        usd_per_hour=draw(st.sampled_from([0.0, 1.0, 3.5])),
        runtimes=draw(st.sampled_from([("process",), ("docker", "process")])),
    )


CLUSTERS = st.integers(0, 9).flatmap(lambda n: st.tuples(*(nodes(i) for i in range(n))))

REQUESTS = st.builds(
    ResourceRequest,
    gpus_milli=st.sampled_from([0, 0, 100, 300, 500, 700, 1000, 2000, 4000, 1500]),
    gpu_type=st.sampled_from(["", "A100", "H100", "a100"]),
    cpus_milli=st.sampled_from([0, 100, 1000, 3000]),
    memory_mib=st.sampled_from([0, 1024, 5000]),
    disk_mib=st.sampled_from([0, 1000, 20_000]),
    labels=st.sampled_from([{}, {}, {}, {"zone": "a"}, {"fast": "yes"}]),
    use_spot=st.sampled_from([None, None, True, False]),
)
JOBS = st.builds(
    Job,
    id=st.just(JobId("j")),
    replicas=st.sampled_from([1, 1, 1, 2, 3, 7]),
    alternatives=st.lists(REQUESTS, min_size=1, max_size=3).map(tuple),
    image=st.sampled_from(["", "", "debian"]),
    tolerations=st.sampled_from([(), (Toleration("gpu"), Toleration("team")),
                                 (Toleration("team", "red"),)]),
)  # fmt: skip


@st.composite
def queues(draw):
    """Some shapes, each wanted several times, mixed."""
    shapes = draw(st.lists(JOBS, min_size=1, max_size=4))
    order = draw(st.lists(st.integers(0, len(shapes) - 1), min_size=1, max_size=30))
    return [replace(shapes[s], id=JobId(f"j{n}")) for n, s in enumerate(order)]


def snapshot_of(nodes, shut=()):
    snapshot = columns.rebuild(nodes, ())
    for node, (cordoned, silent) in zip(nodes, shut, strict=False):
        snapshot.set_schedulable(node.id, cordoned=cordoned, silent=silent)
    return snapshot


def allocations(job, result):
    request = job.alternatives[result.alternative]
    return [
        Allocation(
            id=AllocationId(f"{job.id}.{rank}"),
            job=job.id,
            rank=rank,
            node=seat.node,
            request=request,
            devices=seat.devices,
        )
        for rank, seat in enumerate(result.seats)
    ]


def facts(snapshot):
    return [snapshot._facts(id) for id in snapshot.row]


def check_seat(node, request, seat, job):
    """Written independently of the planner's own filters."""
    assert request.labels.items() <= node.labels.items()
    for taint in node.taints:
        assert any(t.key == taint.key and t.value in ("", taint.value) for t in job.tolerations)
    if request.use_spot is not None:
        assert (node.market is Market.SPOT) == request.use_spot
    if job.image:
        assert set(node.runtimes) - {"process"}
    if request.gpus_milli and request.gpu_type:
        assert node.capacity.gpu_type == request.gpu_type.upper()
    if request.gpus_milli >= MILLI:
        assert len(set(seat.devices)) * MILLI == request.gpus_milli
    else:
        assert len(seat.devices) == (1 if request.gpus_milli else 0), "a share is on one device"
    assert all(0 <= d < node.capacity.gpus for d in seat.devices)


def check_capacity(nodes, held):
    for node in nodes:
        here = [a for a in held if a.node == node.id]
        assert sum(a.request.cpus_milli for a in here) <= node.capacity.cpus_milli
        assert sum(a.request.memory_mib for a in here) <= node.capacity.memory_mib
        assert sum(a.request.disk_mib for a in here) <= node.capacity.disk_mib
        devices = Counter()
        for a in here:
            for d in a.devices:
                devices[d] += min(a.request.gpus_milli, MILLI)
        assert all(used <= MILLI for used in devices.values()), devices


@LAW
@given(
    CLUSTERS, queues(), POLICIES, st.booleans(), st.lists(st.tuples(st.booleans(), st.booleans()))
)
def test_a_round_seats_whole_gangs_where_they_fit_and_writes_nothing(
    nodes, jobs, policy, apply, shut
):
    snapshot = snapshot_of(nodes, shut)
    usable = {n.id: n for n in nodes if snapshot.shut[snapshot.row[n.id]] == 0}
    before = facts(snapshot)
    held = []
    for job, result in zip(jobs, plan_round(snapshot, iter(jobs), policy), strict=True):
        assert result.job == job.id
        if isinstance(result, Unplaceable):
            assert sum(result.rejected.values()) == result.nodes == len(nodes)
            continue
        assert len(result.seats) == job.replicas
        request = job.alternatives[result.alternative]
        for seat in result.seats:
            check_seat(usable[seat.node], request, seat, job)
        new = allocations(job, result)
        held += new
        if apply:  # as a machine does between two results
            for a in new:
                snapshot.hold(a)
    check_capacity(nodes, held)
    if not apply:
        assert facts(snapshot) == before


@LAW
@given(CLUSTERS, queues(), POLICIES)
def test_rounds_and_single_plans_agree(nodes, jobs, policy):
    """One round, and plans made one by one with what they placed held in between."""
    together = list(plan_round(snapshot_of(nodes), jobs, policy))
    snapshot = snapshot_of(nodes)
    single = []
    for job in jobs:
        result = plan(snapshot, job, policy)
        single.append(result)
        if isinstance(result, Plan):
            for a in allocations(job, result):
                snapshot.hold(a)
    assert [type(r) for r in together] == [type(r) for r in single]
    placed = [r for r in together if isinstance(r, Plan)]
    assert placed == [r for r in single if isinstance(r, Plan)]


@LAW
@given(CLUSTERS, JOBS, POLICIES)
def test_what_never_fits_is_told_apart_from_what_waits(nodes, job, policy):
    """On an empty, open cluster a job that may ever fit fits, in a single-kind alternative."""
    result = plan(snapshot_of(nodes), job, policy)
    if isinstance(result, Unplaceable):
        assert not result.ever


@LAW
@given(st.data())
def test_columns_are_the_rebuilt_columns(data):
    snapshot = columns.empty()
    known, held, shut = {}, {}, {}
    for step in range(data.draw(st.integers(1, 25), label="steps")):
        act = data.draw(st.sampled_from(["add", "plan", "plan", "drop", "remove", "shut"]))
        if act == "add":
            node = data.draw(nodes(data.draw(st.integers(0, 5))))
            known[node.id] = node
            snapshot.add_node(node)
        elif act == "plan" and known:
            job = replace(data.draw(JOBS), id=JobId(f"j{step}"))
            result = plan(snapshot, job, BUILT_IN["balanced"])
            for a in allocations(job, result) if isinstance(result, Plan) else ():
                held[a.id] = a
                snapshot.hold(a)
                snapshot.hold(a)  # doubled: no harm
        elif act == "drop" and held:
            a = held.pop(data.draw(st.sampled_from(sorted(held))))
            snapshot.drop(a)
            snapshot.drop(a)
        elif act == "remove" and known:
            id = data.draw(st.sampled_from(sorted(known)))
            del known[id]
            shut.pop(id, None)
            snapshot.remove_node(id)
            for a in [a for a in held.values() if a.node == id]:
                del held[a.id]
                snapshot.drop(a)  # late: no harm
        elif act == "shut" and known:
            id = data.draw(st.sampled_from(sorted(known)))
            shut[id] = data.draw(st.tuples(st.booleans(), st.booleans()))
            snapshot.set_schedulable(id, *shut[id])
        snapshot.shapes()
    rebuilt = columns.rebuild(known.values(), held.values())
    for id, (cordoned, silent) in shut.items():
        rebuilt.set_schedulable(id, cordoned=cordoned, silent=silent)
    assert list(rebuilt.differences(snapshot)) == []
    assert rebuilt == snapshot
    usable = [id for id in known if shut.get(id) in (None, (False, False))]
    shapes = snapshot.shapes()
    assert sum(s.nodes for s in shapes) == len(usable)
    for dimension in ("cpus_milli", "gpus_milli", "memory_mib"):
        total = sum(max(0, getattr(snapshot.free(id), dimension)) for id in usable)
        if not any(getattr(snapshot.free(id), dimension) < 0 for id in usable):
            assert sum(getattr(s, f"free_{dimension}") for s in shapes) == total


WORLD = MarketView(
    as_of="2026-01-01",
    regions={
        "aws/us": Region(name="aws/us", cloud="aws", latitude=39, longitude=-77,
                         carbon_g_per_kwh=400),
        "gcp/eu": Region(name="gcp/eu", cloud="gcp", latitude=50, longitude=4,
                         carbon_g_per_kwh=120),
    },
    internet_egress={"aws": 0.09, "gcp": 0.12},
)  # fmt: skip
AMOUNT = st.floats(0, 1e6, allow_nan=False)
WEIGHT = st.floats(0, 100, allow_nan=False)


@LAW
@given(
    st.builds(Objective, WEIGHT, WEIGHT, WEIGHT, WEIGHT), AMOUNT, AMOUNT, AMOUNT, AMOUNT, REQUESTS
)
def test_the_price_is_monotone_in_each_term(weights, usd, more_usd, gib, expected_s, request):
    job = Job(
        id=JobId("j"),
        alternatives=(request,),
        objective=weights,
        expected_s=expected_s,
        data=(DataSource("s3://d", gib, "aws/us"),),
        users_in=("aws/us",),
    )

    def score(job=job, usd=usd, world=WORLD, region="gcp/eu"):
        return price(job, request, region, usd, world).score

    dirty = {**WORLD.regions, "gcp/eu": replace(WORLD.regions["gcp/eu"], carbon_g_per_kwh=500)}
    far = {**WORLD.regions, "gcp/eu": replace(WORLD.regions["gcp/eu"], longitude=60)}
    more_data = (*job.data, DataSource("s3://e", 10.0, "aws/us"))
    base = score()
    assert score(usd=usd + more_usd) >= base
    assert score(job=replace(job, data=more_data)) >= base
    assert score(world=replace(WORLD, regions=dirty)) >= base
    assert score(world=replace(WORLD, regions=far)) >= base
    p = price(job, request, "gcp/eu", usd, WORLD)
    parts = shares(weights, p)
    total = parts.cost + parts.egress + parts.carbon + parts.latency
    assert abs(total - p.score) <= 1e-9 * max(1.0, abs(p.score))


@LAW
@given(AMOUNT, st.lists(st.integers(0, 10**9), min_size=2, max_size=5))
def test_spending_grows_with_time_and_charges_egress_once(usd, times):
    job = Job(id=JobId("j"), data=(DataSource("s3://d", 100.0, "aws/us"),))
    p = price(job, job.alternatives[0], "gcp/eu", usd, WORLD)
    bills = [spent(p, 1, 1 + t) for t in sorted(times)]
    assert bills == sorted(bills)
    assert spent(p, 1, 1)[0] == p.egress_usd == 9.0
    assert spent(p, 0, 10**9) == (0.0, 0.0)
