"""The planner against another one, in plain Python, that looks at every node for every replica."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from hyperion.model.allocation import Allocation
from hyperion.model.constraints import (
    HOST,
    NodeTerm,
    Operator,
    Packing,
    ReplicaTerm,
    Spread,
)
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Elastic, Job, Role
from hyperion.model.market import MarketView
from hyperion.model.node import Node
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement import kernels, objective, planner
from hyperion.placement import snapshot as columns
from hyperion.placement.feasibility import dominant_share
from hyperion.placement.planner import Plan, Unplaceable, Wish, Withheld, plan, plan_round
from hyperion.placement.ranking import BUILT_IN
from hyperion.placement.snapshot import fullness

LAW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOWHERE = MarketView(as_of="", regions={})
BALANCED = BUILT_IN["balanced"]


# -- the world -------------------------------------------------------------------------------------


@st.composite
def nodes(draw, n):
    gpus = draw(st.sampled_from([0, 0, 1, 2, 4]))
    labels = {}
    for level, names in (("zone", "ab"), ("rack", "rst"), ("nvlink", "uv")):
        name = draw(st.sampled_from([*names, None]))
        if name:
            labels[level] = level + name
    if draw(st.booleans()):
        labels["disk"] = draw(st.sampled_from(["ssd", "hdd"]))
    if draw(st.booleans()):
        labels["speed"] = draw(st.sampled_from(["7", "12", "fast"]))
    custom = draw(st.sampled_from([(), (), (("fpga", 2),), (("fpga", 1), ("port", 5))]))
    return Node(
        id=NodeId(f"n{n}"),
        capacity=Capacity(
            gpus=gpus,
            gpu_type="A100" if gpus else "",
            cpus_milli=draw(st.sampled_from([2000, 4000, 7000])),
            memory_mib=draw(st.sampled_from([4096, 16_384])),
            disk_mib=10_000,
            custom=custom,
        ),
        labels=labels,
        usd_per_hour=draw(st.sampled_from([0.0, 0.0, 1.0, 2.5])),
    )


TERMS = st.sampled_from(
    [
        NodeTerm("disk", Operator.IN, ("ssd", "tape")),
        NodeTerm("disk", Operator.NOT_IN, ("hdd",)),
        NodeTerm("disk", Operator.EXISTS),
        NodeTerm("zone", Operator.ABSENT),
        NodeTerm("speed", Operator.GREATER, ("9",)),
        NodeTerm("speed", Operator.LESS, ("9",)),
    ]
)
REQUESTS = st.builds(
    ResourceRequest,
    gpus_milli=st.sampled_from([0, 0, 300, 500, 1000, 2000]),
    cpus_milli=st.sampled_from([0, 500, 1000, 3000]),
    memory_mib=st.sampled_from([0, 1024]),
    labels=st.sampled_from([{}, {}, {}, {"zone": "zonea"}, {"rack": "rackr"}]),
    custom=st.sampled_from([(), (), (("fpga", 1),), (("port", 2),), (("tpu", 1),)]),
    affinity=st.lists(TERMS, max_size=2).map(tuple),
)
LEVELS = st.sampled_from([HOST, "rack", "zone"])
REPLICA_TERMS = st.builds(
    ReplicaTerm,
    labels=st.sampled_from([(("app", "web"),), (("app", "db"),), (("app", "web"), ("tier", "1"))]),
    level=LEVELS,
    anti=st.booleans(),
)
METADATA = st.sampled_from([{}, {}, {"app": "web"}, {"app": "db"}, {"app": "web", "tier": "1"}])
JOBS = st.builds(
    Job,
    id=st.just(JobId("j")),
    replicas=st.sampled_from([1, 1, 2, 3, 5]),
    alternatives=REQUESTS.map(lambda r: (r,)),
    metadata=METADATA,
)
NEAR_JOBS = st.builds(
    Job,
    id=st.just(JobId("j")),
    replicas=st.sampled_from([1, 1, 2, 3]),
    alternatives=REQUESTS.map(lambda r: (r,)),
    metadata=METADATA,
    replica_affinity=st.lists(REPLICA_TERMS, max_size=2).map(tuple),
    spread=st.lists(
        st.builds(Spread, level=LEVELS, max_skew=st.sampled_from([1, 2])), max_size=1
    ).map(tuple),
)
CLUSTERS = st.integers(1, 8).flatmap(lambda n: st.tuples(*(nodes(i) for i in range(n))))


@st.composite
def queues(draw, shapes=JOBS):
    made = draw(st.lists(shapes, min_size=1, max_size=4))
    order = draw(st.lists(st.integers(0, len(made) - 1), min_size=1, max_size=16))
    return [replace(made[s], id=JobId(f"j{n}")) for n, s in enumerate(order)]


# -- the reference ---------------------------------------------------------------------------------


class Reference:
    """Nodes as plain numbers; replicas as (row, job)."""

    def __init__(self, nodes, closed=(), withheld=None):
        self.nodes = list(nodes)
        self.free = [
            {
                "cpus": n.capacity.cpus_milli,
                "memory": n.capacity.memory_mib,
                "disk": n.capacity.disk_mib,
                **{f"custom {name}": amount for name, amount in n.capacity.custom},
            }
            for n in self.nodes
        ]
        self.devices = [[MILLI] * n.capacity.gpus for n in self.nodes]
        self.replicas = []
        self.closed = set(closed)
        self.withheld = withheld or {}

    def part(self, row, level):
        return self.nodes[row].labels.get(level, ("alone", row)) if level != HOST else row

    def takes(self, job, request, row):
        """Whether there is room for one more replica, and the node is of the right kind."""
        node = self.nodes[row]
        labels = all(node.labels.get(k) == v for k, v in request.labels.items())
        terms = all(self.holds(t, node.labels) for t in request.affinity)
        return row not in self.closed and labels and terms and self.has_room(request, row)

    def has_room(self, request, row):
        free, hold = self.free[row], self.withheld.get(row, Withheld())
        for need, have, keep in (
            (request.cpus_milli, free["cpus"], hold.cpus_milli),
            (request.memory_mib, free["memory"], hold.memory_mib),
            (request.disk_mib, free["disk"], hold.disk_mib),
        ):
            if need and have - keep < need:
                return False
        for name, need in request.custom:
            if free.get(f"custom {name}", 0) - dict(hold.custom).get(name, 0) < need:
                return False
        devices = self.devices[row]
        whole = devices.count(MILLI)
        if request.gpus_milli >= MILLI:
            return whole - hold.gpus >= request.gpus_milli // MILLI
        if request.gpus_milli:
            broken = any(request.gpus_milli <= d < MILLI for d in devices)
            return broken or whole - hold.gpus > 0
        return True

    @staticmethod
    def holds(term, labels):
        has = labels.get(term.key)
        match term.operator:
            case Operator.IN:
                return has in term.values
            case Operator.NOT_IN:
                return has not in term.values
            case Operator.EXISTS:
                return has is not None
            case Operator.ABSENT:
                return has is None
        if has is None or not has.isdigit():
            return False
        bound = int(term.values[0])
        return int(has) > bound if term.operator is Operator.GREATER else int(has) < bound

    def near(self, job, row):
        """Required terms on replicas, its own and others'."""
        for term in job.replica_affinity:
            like = [r for r, other in self.replicas if set(term.labels) <= other.metadata.items()]
            here = any(self.part(r, term.level) == self.part(row, term.level) for r in like)
            first = not like and set(term.labels) <= job.metadata.items()
            if term.anti and here:
                return False
            if not term.anti and not here and not first:
                return False
        for r, other in self.replicas:
            for term in other.replica_affinity:
                mine = set(term.labels) <= job.metadata.items()
                if term.anti and mine and self.part(r, term.level) == self.part(row, term.level):
                    return False
        return True

    def even(self, job, rows):
        for spread in job.spread:
            own = [self.part(r, spread.level) for r, other in self.replicas if other.id == job.id]
            counts = {self.part(r, spread.level): 0 for r in rows}
            least = min((own.count(p) for p in counts), default=0)
            rows = [
                r for r in rows
                if own.count(self.part(r, spread.level)) + 1 - least <= spread.max_skew
            ]  # fmt: skip
        return rows

    def cost(self, job, request, row):
        node = self.nodes[row]
        share = dominant_share(request, node.capacity)
        p = objective.price(
            job, request, "", share * node.usd_per_hour, NOWHERE, node.capacity.gpu_type
        )
        waste = float(bool(node.capacity.gpus) and not request.gpus_milli)
        if 0 < request.gpus_milli < MILLI:
            waste = float(not any(request.gpus_milli <= d < MILLI for d in self.devices[row]))
        full = fullness(
            node.capacity,
            sum(self.devices[row]),
            self.free[row]["cpus"],
            self.free[row]["memory"],
        )
        return p.score + 1e-4 * waste - 1e-5 * full

    def seat(self, job, request, allowed=None):
        """The cheapest node that takes one more replica; None when none does."""
        rows = range(len(self.nodes)) if allowed is None else allowed
        rows = [r for r in rows if self.takes(job, request, r) and self.near(job, r)]
        rows = self.even(job, rows)
        if not rows:
            return None
        row = min(rows, key=lambda r: (self.cost(job, request, r), r))
        return row, self.take(job, request, row)

    def take(self, job, request, row):
        free, devices = self.free[row], self.devices[row]
        free["cpus"] -= request.cpus_milli
        free["memory"] -= request.memory_mib
        free["disk"] -= request.disk_mib
        for name, need in request.custom:
            free[f"custom {name}"] -= need
        chosen = ()
        if request.gpus_milli >= MILLI:
            chosen = tuple(i for i, d in enumerate(devices) if d == MILLI)
            chosen = chosen[: request.gpus_milli // MILLI]
        elif request.gpus_milli:
            fits = [i for i, d in enumerate(devices) if d >= request.gpus_milli]
            chosen = (min(fits, key=lambda i: (devices[i], i)),)
        for i in chosen:
            devices[i] -= min(request.gpus_milli, MILLI)
        self.replicas.append((row, job))
        return chosen

    def gang(self, job, count, allowed=None):
        """Seats one after the other; None, and nothing taken, when they do not all fit."""
        before = ([dict(f) for f in self.free], [list(d) for d in self.devices], len(self.replicas))
        seats = []
        for _ in range(count):
            found = self.seat(job, job.alternatives[0], allowed)
            if found is None:
                self.free, self.devices = before[0], before[1]
                del self.replicas[before[2] :]
                return None
            seats.append((self.nodes[found[0]].id, found[1]))
        return seats


def hold(snapshot, job, result, first_rank=0):
    for rank, seat in enumerate(result.seats, first_rank):
        allocation = Allocation(
            id=AllocationId(f"{job.id}.{rank}"),
            job=job.id,
            rank=rank,
            node=seat.node,
            request=job.request(rank, result.alternative),
            devices=seat.devices,
        )
        snapshot.hold(allocation, job)


def seats(result):
    return None if isinstance(result, Unplaceable) else [(s.node, s.devices) for s in result.seats]


class Fixed:
    """A view in which some rows are closed, and others must keep something free."""

    def __init__(self, closed, withheld):
        self.rows = closed
        self.kept = withheld

    def mark(self, job, ends_at_ms, now_ms):
        return 0

    def closed(self, snapshot, job, ends_at_ms, now_ms):
        mask = np.zeros(snapshot.rows, np.bool_)
        mask[[r for r in self.rows if r < snapshot.rows]] = True
        return mask

    def withheld(self, snapshot, job, ends_at_ms, now_ms):
        return {r: w for r, w in self.kept.items() if r < snapshot.rows}


WITHHELD = st.builds(
    Withheld,
    cpus_milli=st.sampled_from([0, 1000, 3000]),
    gpus=st.sampled_from([0, 1, 2]),
    custom=st.sampled_from([(), (("fpga", 1),)]),
)


# -- laws ------------------------------------------------------------------------------------------


@LAW
@given(CLUSTERS, queues(), st.booleans(), st.sets(st.integers(0, 7), max_size=2),
       st.dictionaries(st.integers(0, 7), WITHHELD, max_size=3))  # fmt: skip
def test_gangs_go_where_the_reference_puts_them(nodes, jobs, held, closed, withheld):
    snapshot = columns.rebuild(nodes, ())
    reference = Reference(nodes, closed, withheld)
    view = Fixed(closed, withheld)
    for job, result in zip(jobs, plan_round(snapshot, jobs, BALANCED, view), strict=True):
        assert seats(result) == reference.gang(job, job.replicas), job
        if held and isinstance(result, Plan):
            hold(snapshot, job, result)


@LAW
@given(CLUSTERS, queues(NEAR_JOBS), st.booleans())
def test_replicas_keep_near_apart_and_even(nodes, jobs, held):
    """Single ones exactly as the reference; of gangs each step is one that it allows."""
    snapshot = columns.rebuild(nodes, ())
    reference = Reference(nodes)
    for job, result in zip(jobs, plan_round(snapshot, jobs, BALANCED), strict=True):
        gathers = job.replicas > 1 and any(not t.anti for t in job.replica_affinity)
        if not gathers:
            assert seats(result) == reference.gang(job, job.replicas), job
        elif isinstance(result, Plan):
            for node, devices in seats(result):
                row = snapshot.row[node]
                rows = [r for r in range(len(nodes))
                        if reference.takes(job, job.alternatives[0], r)
                        and reference.near(job, r)]  # fmt: skip
                assert row in rows
                assert reference.take(job, job.alternatives[0], row) == devices
        else:  # a gang that gathers is tried in more places than the reference looks at
            assert reference.gang(job, job.replicas) is None
        if held and isinstance(result, Plan):
            hold(snapshot, job, result)


@LAW
@given(CLUSTERS, queues(), st.sampled_from(["zone", "rack", "nvlink", HOST]), st.booleans())
def test_packed_gangs_are_in_one_part_whenever_one_takes_them(nodes, jobs, level, required):
    snapshot = columns.rebuild(nodes, ())
    reference = Reference(nodes)
    jobs = [replace(job, packing=Packing(level, required)) for job in jobs]
    for job, result in zip(jobs, plan_round(snapshot, jobs, BALANCED), strict=True):
        room = {}
        for row in range(len(nodes)):
            alone = Reference(nodes)
            alone.free = [dict(f) for f in reference.free]
            alone.devices = [list(d) for d in reference.devices]
            while len(alone.replicas) < 50 and alone.seat(job, job.alternatives[0], [row]):
                pass
            part = reference.part(row, level)
            room[part] = room.get(part, 0) + len(alone.replicas)
        fits = [size for size in room.values() if size >= job.replicas]
        if isinstance(result, Unplaceable):
            assert not fits
            continue
        rows = [snapshot.row[s.node] for s in result.seats]
        parts = {reference.part(r, level) for r in rows}
        assert required <= (len(parts) == 1)
        if fits:
            assert len(parts) == 1
            if job.replicas > 1:
                assert room[parts.pop()] == min(fits), "the tightest fit"
        for row, seat in zip(rows, result.seats, strict=True):
            assert reference.takes(job, job.alternatives[0], row)
            assert reference.take(job, job.alternatives[0], row) == seat.devices


@LAW
@given(CLUSTERS, st.lists(st.tuples(st.integers(1, 3), REQUESTS), min_size=2, max_size=3))
def test_roles_get_what_each_needs_or_nothing(nodes, wanted):
    roles = tuple(Role(name=f"r{i}", replicas=n, resources=r) for i, (n, r) in enumerate(wanted))
    job = Job(
        id=JobId("j"),
        roles=roles,
        replicas=sum(r.replicas for r in roles),
        alternatives=(roles[0].resources,),
    )
    snapshot = columns.rebuild(nodes, ())
    result = plan(snapshot, job, BALANCED)
    reference = Reference(nodes)
    in_order = True
    for rank in range(job.replicas):
        request = job.request(rank, 0)
        found = reference.seat(job, request)
        in_order = in_order and found is not None
        if found is None:
            break
    if isinstance(result, Unplaceable):
        assert not in_order
        assert sum(result.rejected.values()) == result.nodes
        return
    reference = Reference(nodes)
    for rank, seat in enumerate(result.seats):
        row = snapshot.row[seat.node]
        assert reference.nodes[row].labels.items() >= job.request(rank, 0).labels.items()
        reference.take(job, job.request(rank, 0), row)
        assert len(seat.devices) == max(
            job.request(rank, 0).whole_gpus, job.request(rank, 0).gpus_milli > 0
        )
    assert len(result.seats) == job.replicas
    assert all(amount >= 0 for free in reference.free for amount in free.values())
    assert all(milli >= 0 for devices in reference.devices for milli in devices)


@LAW
@given(CLUSTERS, JOBS, st.integers(1, 4), st.integers(0, 8))
def test_an_elastic_wish_gets_as_many_as_fit(nodes, job, least, more):
    job = replace(job, replicas=least + more, elastic=Elastic(least))
    result = plan(
        columns.rebuild(nodes, ()), Wish(job, at_least=least, at_most=least + more), BALANCED
    )
    reference, most = Reference(nodes), 0
    while most < least + more and reference.seat(job, job.alternatives[0]):
        most += 1
    if most < least:
        assert isinstance(result, Unplaceable)
    else:
        assert len(result.seats) == most


@LAW
@given(CLUSTERS, queues(NEAR_JOBS), st.sampled_from(sorted(BUILT_IN)))
def test_compiled_kernels_answer_the_same(nodes, jobs, name):
    if not kernels.warm():
        pytest.skip("numba is not installed (the extra fast), so there is nothing to compare")
    compiled = kernels.active()
    answers = []
    try:
        for each in (compiled, kernels.NUMPY):
            kernels.use(each)
            snapshot = columns.rebuild(nodes, ())
            answers.append(list(plan_round(snapshot, jobs, BUILT_IN[name])))
    finally:
        kernels.use(kernels.NUMPY)
    assert answers[0] == answers[1]


@LAW
@given(CLUSTERS, queues(), st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=6))
def test_a_round_sees_what_its_caller_holds_and_drops_meanwhile(nodes, jobs, acts):
    """Claims over places that are taken, and places given back, between two results."""
    snapshot = columns.rebuild(nodes, ())
    reference = Reference(nodes)
    claims = []
    for n, node in enumerate(nodes):  # somebody is there already
        a = Allocation(id=AllocationId(f"old{n}"), job=JobId("old"), rank=n, node=node.id,
                       request=ResourceRequest(cpus_milli=1000))  # fmt: skip
        snapshot.hold(a)
        reference.free[n]["cpus"] -= 1000
        claims.append(a)
    acts = iter(acts)
    for job, result in zip(jobs, plan_round(snapshot, jobs, BALANCED), strict=True):
        assert seats(result) == reference.gang(job, job.replicas), job
        if isinstance(result, Plan):
            hold(snapshot, job, result)
        row, frees = next(acts, (99, False))
        if row >= len(nodes):
            continue
        if frees:
            if claims[row] is not None:
                snapshot.drop(claims[row])
                reference.free[row]["cpus"] += 1000
                claims[row] = None
        else:
            claim = ResourceRequest(cpus_milli=5000)
            a = Allocation(id=AllocationId(f"claim{job.id}"), job=JobId("claim"), rank=0,
                           node=nodes[row].id, request=claim)  # fmt: skip
            snapshot.hold(a)
            reference.free[row]["cpus"] -= 5000


@LAW
@given(CLUSTERS, JOBS, st.sets(st.integers(0, 7), max_size=3))
def test_open_rows_are_those_that_take_a_replica_when_empty(nodes, job, closed):
    snapshot = columns.rebuild(nodes, ())
    rows = planner.open_rows(snapshot, job, view=Fixed(closed, {}))
    reference = Reference(nodes, closed)
    for row in range(len(nodes)):
        assert rows[row] == reference.takes(job, job.alternatives[0], row)
